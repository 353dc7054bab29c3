// The padding kernels in plain C++.
#include "vec_scalar.hpp"  // first: it names the level

#include "pad_generic.hpp"
