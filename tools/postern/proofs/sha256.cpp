// SPDX-License-Identifier: Apache-2.0
// Sha256: a digest, computed by OpenSSL.
#include "proofs/sha256.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>

namespace postern::tool {

struct Sha256::Context {
  EVP_MD_CTX* state = EVP_MD_CTX_new();
  bool good = state != nullptr && EVP_DigestInit_ex(state, EVP_sha256(), nullptr) == 1;

  Context() = default;
  ~Context() { EVP_MD_CTX_free(state); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {}
Sha256::~Sha256() = default;

void Sha256::add(std::span<const std::byte> bytes) {
  context_->good = context_->good && EVP_DigestUpdate(context_->state, bytes.data(), bytes.size()) == 1;
}

std::string Sha256::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  if (!context_->good || EVP_DigestFinal_ex(context_->state, digest.data(), &length) != 1) return {};
  std::string text;
  for (unsigned at = 0; at < length; ++at) text += fmt::format("{:02x}", digest.at(at));
  return text;
}

}  // namespace postern::tool
