// The scans of the search in AVX2.
#include "vec_avx2.hpp"  // first: it names the level

#include "search_generic.hpp"
