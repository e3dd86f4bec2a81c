// SPDX-License-Identifier: Apache-2.0
// Remedy: what to do about an error, as a code with arguments, and in words.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <postern/export.hpp>
#include <postern/remedy_code.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace postern {

/// One piece of advice: a code that a program can act on, and the names and numbers that its text needs. Thread safety:
/// as std::string.
struct POSTERN_API Remedy {
  RemedyCode code = RemedyCode::other;  ///< what to do
  std::vector<std::string> arguments;   ///< as RemedyCode lists them

  /// Returns the advice in English. Names only functions of this library, files and commands of the system. Commands
  /// are in double quotes and can be pasted into a shell.
  [[nodiscard]] std::string text() const;
  /// Returns the advice by another pattern, in which "{0}" stands for the first argument: for translations, and for
  /// programs with commands of their own. What stands for an argument that does not exist is left as it is.
  [[nodiscard]] std::string text(std::string_view pattern) const;

  friend bool operator==(const Remedy&, const Remedy&) = default;  ///< compares code and arguments
};

/// What to do about an error: nothing known (empty), or pieces of advice in the order in which to consider them. Thread
/// safety: as std::string.
class POSTERN_API Remedies {
 public:
  Remedies() noexcept;  ///< none
  ~Remedies();
  Remedies(const Remedies& other);             ///< copies
  Remedies& operator=(const Remedies& other);  ///< copies
  Remedies(Remedies&&) noexcept;               ///< moves
  Remedies& operator=(Remedies&&) noexcept;    ///< moves
  // Implicit, so that Error::Details::remedy can be given any of these.
  Remedies(Remedy remedy);                           ///< one remedy
  Remedies(RemedyCode code);                         ///< for a code without arguments
  Remedies(std::initializer_list<Remedy> remedies);  ///< several remedies
  /// RemedyCode::other with this text; nothing if it is empty.
  Remedies(std::string text);
  Remedies(const char* text);  ///< a remedy in words

  /// Appends further advice.
  Remedies& add(const Remedies& more);

  [[nodiscard]] bool empty() const noexcept { return list_.empty(); }       ///< whether there is none
  [[nodiscard]] std::size_t size() const noexcept { return list_.size(); }  ///< how many
  [[nodiscard]] std::vector<Remedy>::const_iterator begin() const noexcept { return list_.begin(); }  ///< the first
  [[nodiscard]] std::vector<Remedy>::const_iterator end() const noexcept { return list_.end(); }  ///< behind the last
  /// Whether a piece of advice with this code is among them.
  [[nodiscard]] bool contains(RemedyCode code) const noexcept;

  /// Returns the texts of all, separated by "; ".
  [[nodiscard]] std::string text() const;

  friend bool operator==(const Remedies&, const Remedies&) = default;  ///< compares all

 private:
  std::vector<Remedy> list_;
};

}  // namespace postern
