// Re-exports std's TOML parser from npm with types, for tests.
// @ts-types="./toml.d.ts"
export { parse } from "npm:deno-std@1.4.0/toml/parse.js";
