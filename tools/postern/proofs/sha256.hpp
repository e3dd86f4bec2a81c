// SPDX-License-Identifier: Apache-2.0
// Sha256: a digest over data that comes in pieces.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace postern::tool {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void add(std::span<const std::byte> bytes);
  // In hexadecimal digits; once, at the end. Empty where OpenSSL could not do it.
  [[nodiscard]] std::string finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace postern::tool
