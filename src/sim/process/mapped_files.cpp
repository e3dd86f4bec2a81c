// SPDX-License-Identifier: Apache-2.0
// MappedFiles: disjoint mappings, sorted by address.
#include "sim/process/mapped_files.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

namespace postern::sim {
namespace {

std::uintptr_t end_of(std::uintptr_t address, std::size_t length) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  return address + ((length + page - 1) & ~(page - 1));
}

}  // namespace

void MappedFiles::add(std::uintptr_t address, std::size_t length, std::shared_ptr<File> file) {
  mappings_[end_of(address, length)] = {.first = address, .file = std::move(file)};
}

std::set<std::shared_ptr<File>> MappedFiles::remove(std::uintptr_t address, std::size_t length) {
  const std::uintptr_t end = end_of(address, length);
  std::set<std::shared_ptr<File>> files;
  for (auto at = mappings_.upper_bound(address); at != mappings_.end() && at->second.first < end;) {
    const auto [mapping_end, mapping] = *at;
    at = mappings_.erase(at);
    files.insert(mapping.file);
    if (mapping.first < address) mappings_[address] = mapping;
    if (mapping_end > end) mappings_[mapping_end] = {.first = end, .file = mapping.file};
  }
  return files;
}

bool MappedFiles::hold(const File& file) const {
  return std::any_of(mappings_.begin(), mappings_.end(),
                     [&file](const auto& each) { return each.second.file.get() == &file; });
}

// visit(file, bytes)
template <typename Visit>
void MappedFiles::for_each_in(std::uintptr_t address, std::uint64_t length, Visit visit) const {
  for (auto at = mappings_.upper_bound(address); at != mappings_.end(); ++at) {
    const auto& [first, file] = at->second;
    if (first >= address && first - address >= length) return;
    const std::uint64_t skipped = std::max(first, address) - address;
    visit(*file, std::min(at->first - address, length) - skipped);
  }
}

std::uint64_t MappedFiles::bytes_in(std::uintptr_t address, std::uint64_t length) const {
  std::uint64_t bytes = 0;
  for_each_in(address, length, [&](const File& /*file*/, std::uint64_t part) { bytes += part; });
  return bytes;
}

bool MappedFiles::answer(std::uintptr_t address, std::uint64_t length) const {
  bool answers = true;
  for_each_in(address, length, [&](const File& file, std::uint64_t /*part*/) { answers = answers && file.answers(); });
  return answers;
}

}  // namespace postern::sim
