// SPDX-License-Identifier: Apache-2.0
// The errors of failed calls. Out of line and cold: hundreds of places make one, and none of them is fast.
#include "kernel/ioctl.hpp"

namespace postern {

tl::unexpected<Error> call_failure(std::string_view symbol, CallFailed what) {
  return failure({.code = -what.result,
                  .kind = what.kind,
                  .operation = std::string(symbol),
                  .object = std::move(what.object),
                  .reason = std::move(what.reason),
                  .remedy = std::move(what.remedy),
                  .causes = std::move(what.causes)});
}

tl::unexpected<Error> refusal(CallFailed what) { return call_failure("", std::move(what)); }

}  // namespace postern
