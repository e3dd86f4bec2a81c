// SPDX-License-Identifier: Apache-2.0
// Sha256: a digest of data that arrives in pieces.
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
  // Returns the digest in hexadecimal digits. Call it once, at the end. Empty if OpenSSL failed.
  [[nodiscard]] std::string finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace postern::tool
