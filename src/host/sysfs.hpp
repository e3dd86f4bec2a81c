// SPDX-License-Identifier: Apache-2.0
// Reads small files, links and numbers from sysfs and /proc. Only ENOENT means that something does not exist. Any other
// errno is an error that names the call and the path.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/kernel.hpp>
#include <postern/remedy.hpp>
#include <postern/result.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern::sysfs {

// The remedy for a call that failed because this process ran out of a resource (EMFILE); empty for any other errno.
[[nodiscard]] Remedies shortage_remedy(int result);
// The error of a call that could not read a path: "PATH: readlink: EACCES".
[[nodiscard]] tl::unexpected<Error> unread(const char* call, int result, const std::string& path);

// Returns a file's text without trailing white space; nothing if the file does not exist.
[[nodiscard]] Result<std::optional<std::string>> text(Kernel& kernel, const std::string& path);
// The same, but empty if the file does not exist or cannot be read. Only for the text of errors.
[[nodiscard]] std::string text_if_readable(Kernel& kernel, const std::string& path);
// Returns a file's number in the format of C ("0x1af4", "-1"); nothing if the file does not exist or has no number.
[[nodiscard]] Result<std::optional<std::int64_t>> number(Kernel& kernel, const std::string& path);
// Returns a device number, which the kernel writes as "10:196"; nothing if the file does not exist or has none.
[[nodiscard]] Result<std::optional<dev_t>> device_number(Kernel& kernel, const std::string& path);
// Returns the last part of a link's target: the name of a driver, a group, a bus. Nothing if there is no link.
[[nodiscard]] Result<std::optional<std::string>> link_name(Kernel& kernel, const std::string& path);
[[nodiscard]] Result<bool> is_there(Kernel& kernel, const std::string& path);
// Returns the entries of a folder; none if it does not exist.
[[nodiscard]] Result<std::vector<std::string>> entries(Kernel& kernel, const std::string& path);

// Whether a name stands for one entry of a folder: it is not empty, has no slash and no control character in it, and is
// neither "." nor "..". To be asked before what somebody wrote becomes a path.
[[nodiscard]] bool is_entry(std::string_view name);

}  // namespace postern::sysfs
