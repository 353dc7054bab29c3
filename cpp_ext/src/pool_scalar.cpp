// The pooling kernels in plain C++.
#include "vec_scalar.hpp"  // first: it names the level

#include "pool_generic.hpp"
