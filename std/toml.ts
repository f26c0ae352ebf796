// The typed door to std's TOML parser as npm carries it; for tests.
// @ts-types="./toml.d.ts"
export { parse } from "npm:deno-std@1.4.0/toml/parse.js";
