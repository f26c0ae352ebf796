// Re-exports std's path module from npm with types. `posix` is not used, because paths are the host's.
// @ts-types="./path.d.ts"
export { dirname, fromFileUrl, join, resolve } from "npm:deno-std@1.4.0/path/mod.js";
