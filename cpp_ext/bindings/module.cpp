// The Python module headway.cpp_ext._native.
#include "headway/level.hpp"
#include "register.hpp"

NB_MODULE(_native, module) {
    headway::level();  // a wrong HEADWAY_SIMD fails the import, not the first call
    headway::register_caches(module);
    headway::register_cpu(module);
    headway::register_dlpack(module);
    headway::register_level(module);
    headway::register_pad(module);
    headway::register_pool(module);
    headway::register_search(module);
    headway::register_softmax(module);
    headway::register_spans(module);
    headway::register_tags(module);
}
