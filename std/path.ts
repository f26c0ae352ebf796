// The typed door to std's path as npm carries it. The `posix` flavour is not used: paths here are the host's.
// @ts-types="./path.d.ts"
export { dirname, fromFileUrl, join, resolve } from "npm:deno-std@1.4.0/path/mod.js";
