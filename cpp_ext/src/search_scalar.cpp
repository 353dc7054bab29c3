// The scans of the search in plain C++.
#include "vec_scalar.hpp"  // first: it names the level

#include "search_generic.hpp"
