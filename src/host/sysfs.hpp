// SPDX-License-Identifier: Apache-2.0
// Reading sysfs: small files, links and numbers, each optional.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/kernel.hpp>
#include <string>
#include <string_view>

namespace postern::sysfs {

// Whether a call failed for what this process or the host is short of (EMFILE, ENFILE, ENOMEM). That tells nothing of
// the file: above all not that there is none.
[[nodiscard]] bool tells_nothing(int result);
// What to do about it; empty where this is not it, or nothing is known.
[[nodiscard]] std::string shortage_remedy(int result);
// The file's text without white space at its end; nothing where it cannot be read.
[[nodiscard]] std::optional<std::string> text(Kernel& kernel, const std::string& path);
// The file's number, as C spells it ("0x1af4", "-1").
[[nodiscard]] std::optional<std::int64_t> number(Kernel& kernel, const std::string& path);
// Whether a name stands for one entry of a folder: it is not empty, has no slash and no control character in it, and is
// neither "." nor "..". To be asked before what somebody wrote becomes a path.
[[nodiscard]] bool is_entry(std::string_view name);
// The last part of what a link points to: the name of a driver, a group, a bus.
[[nodiscard]] std::optional<std::string> link_name(Kernel& kernel, const std::string& path);
// The same, where it matters why there is none: 0 or a negated errno.
[[nodiscard]] int link_name(Kernel& kernel, const std::string& path, std::string& name);

}  // namespace postern::sysfs
