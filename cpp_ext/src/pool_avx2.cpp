// The pooling kernels in AVX2.
#include "vec_avx2.hpp"  // first: it names the level

#include "pool_generic.hpp"
