// The softmax kernels in plain C++.
#include "vec_scalar.hpp"  // first: it names the level

#include "softmax_generic.hpp"
