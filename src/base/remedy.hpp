// SPDX-License-Identifier: Apache-2.0
// remedy(): makes a remedy, with the number of its arguments checked by the compiler.
#pragma once

#include <cstddef>
#include <postern/remedy.hpp>
#include <string>
#include <utility>

namespace postern {

// The number of arguments of a remedy. remedy.cpp checks it against the text.
constexpr std::size_t argument_count(RemedyCode code) noexcept {
  using enum RemedyCode;
  switch (code) {
    case other:
    case see_causes:
    case find_holder:
    case raise_locked_memory_limit_to:
    case remove_kernel_parameter:
    case turn_iommu_on:
    case give_guest_iommu:
    case try_another_slot:
    case accept_unsafe_interrupts:
    case bind_to_vfio_driver:
    case bind_if_spare:
    case bind_whole_group:
    case load_driver:
    case bind_for_node:
    case allow_in_device_cgroup:
    case refresh_node:
    case give_fd_of_node:
    case read_device_again:
    case use_kernel_with_option:
    case wake_device:
    case use_backend:
    case build_all_backends:
    case detach_group_mate:
    case align_mapping:
    case use_page_multiples:
    case choose_window_size:
    case omit_window_levels:
    case attach_too:
    case reset_and_open_again:
    case find_bar_holder:
    case turn_vectors_off:
      return 1;
    case remove_kernel_parameter_word:
    case see_log_for_iommu:
    case use_kernel_with_iommu_driver:
    case use_host_with_iommu:
    case keep_driver:
    case load_module:
    case add_node:
    case give_node_to_user:
      return 2;
    case make_node:
      return 3;
    case make_node_and_folder:
      return 4;
    default:
      return 0;
  }
}

// Returns a remedy with its arguments, converted to std::string.
template <RemedyCode code, typename... Arguments>
[[nodiscard]] Remedy remedy(Arguments&&... arguments) {
  static_assert(sizeof...(arguments) == argument_count(code), "RemedyCode says which arguments this remedy takes");
  return {.code = code, .arguments = {std::string(std::forward<Arguments>(arguments))...}};
}

// The number of codes.
inline constexpr std::size_t remedy_count = static_cast<std::size_t>(RemedyCode::disable_instead_of_masking) + 1;

}  // namespace postern
