// The Python module headway.cpp_ext._cuda.
#include "register.hpp"

NB_MODULE(_cuda, module) {
    headway::cuda::register_beams(module);
    headway::cuda::register_device(module);
    headway::cuda::register_follow(module);
    headway::cuda::register_pad(module);
    headway::cuda::register_pool(module);
    headway::cuda::register_quantize(module);
    headway::cuda::register_spans(module);
    headway::cuda::register_tags(module);
}
