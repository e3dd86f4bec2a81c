// SPDX-License-Identifier: Apache-2.0
// Edu's registers, from QEMU's docs/specs/edu.rst.
#pragma once

#include <cstddef>
#include <cstdint>

namespace postern::sim::edu {

namespace at {
inline constexpr std::size_t identification = 0x00;
inline constexpr std::size_t liveness = 0x04;
inline constexpr std::size_t factorial = 0x08;
inline constexpr std::size_t status = 0x20;
inline constexpr std::size_t interrupt_status = 0x24;
inline constexpr std::size_t interrupt_raise = 0x60;
inline constexpr std::size_t interrupt_acknowledge = 0x64;
// The following have 64 bits.
inline constexpr std::size_t dma_source = 0x80;
inline constexpr std::size_t dma_destination = 0x88;
inline constexpr std::size_t dma_count = 0x90;
inline constexpr std::size_t dma_command = 0x98;
}  // namespace at

inline constexpr std::uint32_t identification = 0x010000ed;

inline constexpr std::uint32_t status_computing = 0x01;
inline constexpr std::uint32_t status_interrupts = 0x80;  // when a factorial is done

inline constexpr std::uint64_t command_run = 0x1;
inline constexpr std::uint64_t command_to_memory = 0x2;  // else from memory to the device
inline constexpr std::uint64_t command_interrupts = 0x4;

inline constexpr std::uint32_t interrupt_factorial = 0x1;
inline constexpr std::uint32_t interrupt_dma = 0x100;

inline constexpr std::uint64_t buffer_at = 0x40000;          // in the addresses of its DMA engine
inline constexpr std::uint64_t dma_mask = (1U << 28) - 1;    // of addresses in memory
inline constexpr std::uint32_t nothing = ~std::uint32_t{0};  // the value of a register that cannot be read

}  // namespace postern::sim::edu
