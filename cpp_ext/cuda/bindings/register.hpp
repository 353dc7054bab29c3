// What each file here adds to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace headway::cuda {

void register_beams(nanobind::module_& module);
void register_device(nanobind::module_& module);
void register_follow(nanobind::module_& module);
void register_pad(nanobind::module_& module);
void register_pool(nanobind::module_& module);
void register_quantize(nanobind::module_& module);
void register_spans(nanobind::module_& module);
void register_tags(nanobind::module_& module);

}  // namespace headway::cuda
