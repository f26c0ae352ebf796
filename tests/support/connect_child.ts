/**
 * Asks for URLs as if an upstream had named them, their names leading to this machine, and prints what came
 * of each: a process of its own, since Deno reads which authorities to trust (`DENO_CERT`) when it starts.
 *
 * @module
 */
import { createConnect, type Lookup } from "../../lib/upstream/transport/connect.ts";

/** A resolver whose answer passes for public when it is checked, and leads to this machine. */
export const passing: Lookup = (_hostname, _options, callback) => {
  let isChecked = false;
  const address = {
    family: 4,
    get address() {
      const now = isChecked ? "127.0.0.1" : "8.8.8.8";
      isChecked = true;
      return now;
    },
  };
  callback(null, [address]);
};

if (import.meta.main) {
  const authoritiesFile = Deno.env.get("DENO_CERT");
  using connect = createConnect({ allowPrivate: false, lookup: passing, authoritiesFile });
  const registry = { url: new URL("https://registry.example") };
  for (const url of Deno.args) {
    const stop = new AbortController();
    try {
      const response = await connect(new URL(url), {
        registry,
        method: "GET",
        headers: new Headers(),
        signal: stop.signal,
      });
      console.log(`${response.status} ${await response.text()}`);
    } catch (error) {
      console.log(`failed: ${error}`);
    } finally {
      stop.abort();
    }
  }
}
