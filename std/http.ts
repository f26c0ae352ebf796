// Re-exports std's HTTP helpers from npm with types.
// @ts-types="./http.d.ts"
export { STATUS_CODE, STATUS_TEXT } from "npm:deno-std@1.4.0/http/status.js";
