// What node's own modules and globals hold, as JSON: {container: [name, …]}.
const found = {};
function names(value) {
  const all = new Set();
  for (let at = value; at && at !== Object.prototype && at !== Function.prototype; at = Object.getPrototypeOf(at))
    Object.getOwnPropertyNames(at).forEach((name) => all.add(name));
  return all;
}
function add(container, value) {
  found[container] = [...names(value)];
  for (const name of found[container]) {
    let inner;
    try { inner = value[name]; } catch { continue; }
    if (typeof inner === "function" && inner.prototype) found[`${container}.${name}`] = [...names(inner), ...names(inner.prototype)];
    else if (inner && typeof inner === "object") found[`${container}.${name}`] = [...names(inner)];
  }
}
process.removeAllListeners("warning");
process.on("warning", () => {});
for (const name of require("module").builtinModules) add(name, require(name));
add("globals", globalThis);
found["globals"].push("require", "module", "exports", "__dirname", "__filename", "arguments", "this", "super", "undefined");
found["Object.prototype"] = Object.getOwnPropertyNames(Object.prototype);
found["Function.prototype"] = Object.getOwnPropertyNames(Function.prototype);
console.log(JSON.stringify(found));
