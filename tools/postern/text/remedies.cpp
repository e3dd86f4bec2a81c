// SPDX-License-Identifier: Apache-2.0
// words_of(): the texts of remedies, with the tool's commands.
#include "text/remedies.hpp"

#include <algorithm>
#include <array>
#include <string_view>

namespace postern::tool {
namespace {

struct Words {
  RemedyCode code;
  std::string_view text;
};

constexpr std::array table = {
    Words{RemedyCode::see_causes, "see every condition with \"postern doctor {0}\""},
    Words{RemedyCode::list_devices, "list the devices of this host with \"postern devices\""},
    Words{RemedyCode::bind_to_vfio_driver, "\"postern bind {0}\""},
    Words{RemedyCode::bind_if_spare, "if this host can spare {0}: \"postern bind {0}\""},
    Words{RemedyCode::bind_whole_group,
          "a group is passed through as a whole: bind its other members too, if \"postern doctor {0}\" says that this "
          "host can spare them"},
    Words{RemedyCode::use_other_backend, "use another backend; \"postern backends\" lists them"},
    Words{RemedyCode::give_vf_token, "give that token with --vf-token"},
    Words{RemedyCode::reset_and_open_again, "\"postern reset {0}\", then run this command again"},
    Words{RemedyCode::open_again, "run this command again"},
};

}  // namespace

std::string words_of(const Remedy& remedy) {
  const auto* const words =
      std::find_if(table.begin(), table.end(), [&](const Words& each) { return each.code == remedy.code; });
  return words == table.end() ? remedy.text() : remedy.text(words->text);
}

std::string words_of(const Remedies& remedies) {
  std::string text;
  for (const Remedy& remedy : remedies) text += (text.empty() ? "" : "; ") + words_of(remedy);
  return text;
}

}  // namespace postern::tool
