// The pooling kernels in AVX-512.
#include "vec_avx512.hpp"  // first: it names the level

#include "pool_generic.hpp"
