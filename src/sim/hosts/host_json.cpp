// SPDX-License-Identifier: Apache-2.0
// parse_host(): parses JSON descriptions of simulated hosts.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "sim/hosts/hosts.hpp"
#include "sim/hosts/json_text.hpp"

namespace postern::sim {
namespace {

using Json = nlohmann::json;

// A value of the document, and its position: "host.json: functions[1].address".
struct Place {
  const Json& value;
  std::string file;
  std::string path;  // empty: the document

  [[nodiscard]] Place below(const std::string& key) const {
    return {value.at(key), file, path.empty() ? key : path + "." + key};
  }
  [[nodiscard]] Place below(std::size_t index) const {
    return {value.at(index), file, fmt::format("{}[{}]", path, index)};
  }
};

tl::unexpected<Error> refuse(const std::string& file, const std::string& path, std::string reason, std::string remedy) {
  return failure({.code = EINVAL,
                  .operation = choose_host,
                  .object = path.empty() ? file : file + ": " + path,
                  .reason = std::move(reason),
                  .remedy = std::move(remedy),
                  .causes = {}});
}

tl::unexpected<Error> refuse(const Place& place, std::string remedy) {
  constexpr std::size_t longest = 40;
  std::string shown = place.value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (shown.size() > longest) shown = fmt::format("this {}", place.value.type_name());
  return refuse(place.file, place.path, shown + " is not allowed here", std::move(remedy));
}

// A key of an object, and how its value is parsed.
template <typename Described>
struct Key {
  std::string_view name;
  bool is_required;
  Result<void> (*read)(const Place& place, Described& into);
};

template <typename Described>
Result<void> read_object(const Place& place, std::span<const Key<Described>> keys, Described& into) {
  const auto names = [&] {
    std::string text;
    for (const auto& key : keys) text += (text.empty() ? "" : ", ") + std::string(key.name);
    return text;
  };
  if (!place.value.is_object()) return refuse(place, fmt::format("write an object, {{...}}, with: {}", names()));
  for (const auto& item : place.value.items()) {
    const bool is_known =
        std::any_of(keys.begin(), keys.end(), [&](const auto& key) { return key.name == item.key(); });
    if (!is_known) {
      return refuse(place.file, place.below(item.key()).path, "unknown key",
                    fmt::format("the keys here are: {}", names()));
    }
  }
  for (const auto& key : keys) {
    const std::string name(key.name);
    if (place.value.contains(name)) {
      POSTERN_TRY(key.read(place.below(name), into));
    } else if (key.is_required) {
      return refuse(place.file, place.path, fmt::format("the key \"{}\" is missing", name),
                    fmt::format("the keys here are: {}", names()));
    }
  }
  return {};
}

template <typename Number>
Result<void> read_number(const Place& place, Number& into, std::string_view unit = "a number") {
  constexpr std::uint64_t most = std::numeric_limits<Number>::max();
  if (!place.value.is_number_unsigned() || place.value.get<std::uint64_t>() > most) {
    return refuse(place, fmt::format("write {}, whole and from 0 to {}", unit, most));
  }
  into = static_cast<Number>(place.value.get<std::uint64_t>());
  return {};
}

Result<void> read_text(const Place& place, std::string& into) {
  if (!place.value.is_string()) return refuse(place, "write a string, \"...\"");
  into = place.value.get<std::string>();
  return {};
}

Result<void> read_bool(const Place& place, bool& into) {
  if (!place.value.is_boolean()) return refuse(place, "write true or false");
  into = place.value.get<bool>();
  return {};
}

// Parses one of the names of a table.
template <typename Entry, typename Value>
Result<void> read_name(const Place& place, std::span<const Entry> table, Value Entry::*value, Value& into) {
  const auto found = std::find_if(table.begin(), table.end(), [&](const Entry& entry) {
    return place.value.is_string() && place.value.get_ref<const std::string&>() == entry.name;
  });
  if (found != table.end()) {
    into = (*found).*value;
    return {};
  }
  std::string names;
  for (const Entry& entry : table) names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", entry.name);
  return refuse(place, fmt::format("write one of: {}", names));
}

struct PlatformName {
  Platform platform;
  std::string_view name;
};
constexpr std::array<PlatformName, 4> platforms{
    {{Platform::pc, "pc"}, {Platform::arm, "arm"}, {Platform::pseries, "pseries"}, {Platform::powernv, "powernv"}}};

constexpr std::array<Key<HostFunction>, 6> function_keys{{
    {"address", true,
     [](const Place& place, HostFunction& function) -> Result<void> {
       std::string text;
       if (auto read = read_text(place, text); !read) return read;
       const auto address = PciAddress::parse(text);
       if (!address) return refuse(place, address.error().remedy());
       function.address = *address;
       return {};
     }},
    {"model", true,
     [](const Place& place, HostFunction& function) {
       return read_name(place, models(), &ModelName::model, function.model);
     }},
    {"iommu_group", true,
     [](const Place& place, HostFunction& function) -> Result<void> {
       function.iommu_group = -1;
       return place.value.is_null() ? Result<void>()
                                    : read_number(place, function.iommu_group, "null for none, or a group's number");
     }},
    {"driver", false, [](const Place& place, HostFunction& function) { return read_text(place, function.driver); }},
    {"serial", false, [](const Place& place, HostFunction& function) { return read_text(place, function.serial); }},
    {"bytes", false,
     [](const Place& place, HostFunction& function) { return read_number(place, function.bytes, "bytes"); }},
}};

constexpr std::array<Key<Host>, 8> host_keys{{
    {"platform", true,
     [](const Place& place, Host& host) {
       auto read = read_name(place, std::span<const PlatformName>(platforms), &PlatformName::platform, host.platform);
       if (host.platform == Platform::arm) host.address_bits = arm().address_bits;
       return read;
     }},
    {"functions", true,
     [](const Place& place, Host& host) -> Result<void> {
       if (!place.value.is_array()) return refuse(place, "write a list, [...], of functions");
       for (std::size_t index = 0; index < place.value.size(); ++index) {
         auto read = read_object(place.below(index), std::span<const Key<HostFunction>>(function_keys),
                                 host.functions.emplace_back());
         if (!read) return read;
       }
       return {};
     }},
    {"locked_memory", false,
     [](const Place& place, Host& host) -> Result<void> {
       if (place.value.is_null()) return {};
       return read_number(place, host.locked_memory.emplace(), "null for no limit, or bytes");
     }},
    {"address_bits", false, [](const Place& place, Host& host) { return read_number(place, host.address_bits); }},
    {"mapping_limit", false, [](const Place& place, Host& host) { return read_number(place, host.mapping_limit); }},
    {"dirty_bits", false, [](const Place& place, Host& host) { return read_bool(place, host.dirty_bits); }},
    {"enable_unsafe_noiommu_mode", false,
     [](const Place& place, Host& host) { return read_bool(place, host.enable_unsafe_noiommu_mode); }},
    {"dynamic_msix", false, [](const Place& place, Host& host) { return read_bool(place, host.dynamic_msix); }},
}};

// Rejects keys that the platform, or the model, does not support.
Result<void> check_use(const Place& document, const Host& host) {
  const bool is_power = host.platform != Platform::pc && host.platform != Platform::arm;
  for (const char* const key :
       {"address_bits", "mapping_limit", "dirty_bits", "enable_unsafe_noiommu_mode", "dynamic_msix"}) {
    if (is_power && document.value.contains(key)) {
      return refuse(document.file, key, "POWER hosts do not support this key",
                    "omit it, or write the platform \"pc\" or \"arm\"");
    }
  }
  for (std::size_t index = 0; index < host.functions.size(); ++index) {
    const Place function = document.below("functions").below(index);
    const ModelName& model = name_of(host.functions[index].model);
    for (const char* const key : {"serial", "bytes"}) {
      if (!model.has_disk && function.value.contains(key)) {
        return refuse(function.file, function.below(key).path, fmt::format("the model {} has no disk", model.name),
                      "omit it");
      }
    }
  }
  return {};
}

}  // namespace

Result<Host> parse_host(std::string_view json, std::string_view file) {
  const std::string name(file);
  if (JsonFault wrong = check_json(json); !wrong.reason.empty()) {
    return refuse(name, wrong.place, std::move(wrong.reason), std::move(wrong.remedy));
  }
  const Json value = Json::parse(json, nullptr, false);
  Host host;
  const Place document{value, name, ""};
  POSTERN_TRY(read_object(document, std::span<const Key<Host>>(host_keys), host));
  POSTERN_TRY(check_use(document, host));
  if (const Impossible wrong = find_impossible(host); !wrong.empty()) {
    return refuse(name, wrong.place, wrong.reason, wrong.remedy);
  }
  return host;
}

}  // namespace postern::sim
