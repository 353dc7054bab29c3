// The softmax kernels in AVX-512.
#include "vec_avx512.hpp"  // first: it names the level

#include "softmax_generic.hpp"
