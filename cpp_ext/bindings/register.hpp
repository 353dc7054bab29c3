// What each file here adds to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace headway {

void register_caches(nanobind::module_& module);
void register_cpu(nanobind::module_& module);
void register_dlpack(nanobind::module_& module);
void register_level(nanobind::module_& module);
void register_pad(nanobind::module_& module);
void register_pool(nanobind::module_& module);
void register_search(nanobind::module_& module);
void register_softmax(nanobind::module_& module);
void register_spans(nanobind::module_& module);
void register_tags(nanobind::module_& module);

}  // namespace headway
