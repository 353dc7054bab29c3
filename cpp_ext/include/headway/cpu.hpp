// What this CPU can do, and what the operating system lets programs use of it.
#pragma once

#include <map>
#include <string>

namespace headway {

// Feature name as in Linux's /proc/cpuinfo -> usable here. All false on other architectures.
// Source: Intel SDM volume 2A (CPUID) and volume 1, chapter 13 (XCR0).
// Linux grants AMX tile data per process on request, arch_prctl(ARCH_REQ_XCOMP_PERM): not done
// here.
const std::map<std::string, bool>& cpu_features();

}  // namespace headway
