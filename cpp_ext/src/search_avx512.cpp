// The scans of the search in AVX-512.
#include "vec_avx512.hpp"  // first: it names the level

#include "search_generic.hpp"
