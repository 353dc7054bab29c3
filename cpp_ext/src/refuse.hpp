// How the library refuses wrong arguments: one exception that carries the numbers which explain it.
#pragma once

#include <sstream>
#include <stdexcept>

namespace headway {

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    throw std::invalid_argument(text.str());
}

}  // namespace headway
