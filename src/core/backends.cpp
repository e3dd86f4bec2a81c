// SPDX-License-Identifier: Apache-2.0
// Finding and choosing a backend by name. Which ones there are is the generated table's to say.
#include <fmt/format.h>

#include <algorithm>

#include "core/choice.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

std::string built_names() {
  std::vector<std::string_view> names;
  for (const Backend* backend : backends()) names.push_back(backend->name);
  return fmt::format("{}", fmt::join(names, ", "));
}

Result<Choice> choose_any(Kernel& kernel, const HostDevice& device, std::vector<Error> refusals) {
  for (const Backend* backend : backends().subspan(refusals.size())) {
    auto usable = backend->probe(kernel, &device);
    if (usable) return Choice{.backend = backend, .node = std::move(*usable), .refusals = std::move(refusals)};
    refusals.push_back(std::move(usable).error());
  }
  CallFailed what{.result = -ENODEV,
                  .object = fmt::format("backend for {}", device.name),
                  .reason = fmt::format("no backend can take it; tried {}", built_names()),
                  .remedy = fmt::format("see every condition with \"postern doctor {}\"", device.name),
                  .causes = std::move(refusals)};
  return refusal(std::move(what));
}

}  // namespace

Result<const Backend*> find_backend(std::string_view name) {
  for (const Backend* backend : backends()) {
    if (backend->name == name) return backend;
  }
  const auto known = known_backends();
  CallFailed what{.result = -EINVAL,
                  .object = fmt::format("backend \"{}\"", name),
                  .reason = "there is no backend of this name",
                  .remedy = fmt::format("use one of: auto, {}", built_names())};
  if (std::find(known.begin(), known.end(), name) != known.end()) {
    what.result = -ENOSYS;
    what.reason = "this build of postern leaves it out";
    what.remedy = fmt::format("build with -DPOSTERN_BACKENDS=all, or use one of: auto, {}", built_names());
  }
  return refusal(std::move(what));
}

Result<Choice> choose(Kernel& kernel, std::string_view name, const HostDevice& device, std::vector<Error> refusals) {
  if (name == "auto") return choose_any(kernel, device, std::move(refusals));
  auto backend = find_backend(name);
  if (!backend) return failure_of(backend);
  auto usable = (*backend)->probe(kernel, &device);
  if (usable) return Choice{.backend = *backend, .node = std::move(*usable)};
  const Error& why = usable.error();
  const std::string call = why.operation().empty() ? "" : why.operation() + ": ";
  return refusal(
      {.result = -ENODEV,
       .object = fmt::format("backend {} for {}", name, device.name),
       .reason = fmt::format("it is not available here: {}{}: {}", call, errno_name(why.code()), why.reason()),
       .remedy = why.remedy()});
}

Result<const Backend*> choose_backend(Kernel& kernel, std::string_view name, const HostDevice& device) {
  auto choice = choose(kernel, name, device);
  if (!choice) return failure_of(choice);
  return choice->backend;
}

}  // namespace postern
