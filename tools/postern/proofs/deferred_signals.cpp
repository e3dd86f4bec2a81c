// SPDX-License-Identifier: Apache-2.0
// DeferredSignals: handlers that defer signals.
#include "proofs/deferred_signals.hpp"

#include <algorithm>
#include <array>
#include <atomic>

namespace postern::tool {
namespace {

std::array<std::atomic<bool>, NSIG> held_signals;
static_assert(std::atomic<bool>::is_always_lock_free);

void hold_signal(int signal) { held_signals[static_cast<std::size_t>(signal)] = true; }

// Not deferred: faults, signals that cannot be caught, harmless signals, and those by which a terminal stops a
// background process: with a handler, its read or write would be retried for ever.
constexpr std::array left_alone = {SIGILL,  SIGTRAP, SIGABRT, SIGBUS, SIGFPE,   SIGSEGV, SIGSYS, SIGKILL,
                                   SIGSTOP, SIGCHLD, SIGCONT, SIGURG, SIGWINCH, SIGTTIN, SIGTTOU};

}  // namespace

DeferredSignals::DeferredSignals() {
  for (auto& held : held_signals) held = false;
  struct sigaction hold {};
  hold.sa_handler = hold_signal;
  hold.sa_flags = SA_RESTART;
  ::sigfillset(&hold.sa_mask);
  for (int signal = 1; signal < NSIG; ++signal) {
    if (std::find(left_alone.begin(), left_alone.end(), signal) != left_alone.end()) continue;
    struct sigaction before {};
    // The C library reserves two, and refuses them.
    if (::sigaction(signal, nullptr, &before) != 0 || before.sa_handler == SIG_IGN) continue;
    if (::sigaction(signal, &hold, nullptr) == 0) before_.emplace_back(signal, before);
  }
}

DeferredSignals::~DeferredSignals() {
  for (const auto& [signal, before] : before_) (void)::sigaction(signal, &before, nullptr);
  for (const auto& [signal, before] : before_) {
    if (held_signals[static_cast<std::size_t>(signal)]) (void)::raise(signal);
  }
}

}  // namespace postern::tool
