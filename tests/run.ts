/**
 * `deno task test`: first the tests that share nothing, in parallel by file; then those of tests/e2e, which
 * start real servers and clients, one after the other. With arguments it is `deno test` with them:
 * `deno task test tests/oci --filter digest`.
 *
 * @module
 */
import { fromFileUrl } from "@std/path";

const ROOT = fromFileUrl(new URL("..", import.meta.url));

/** Runs `deno test`. Returns whether it went well. */
async function test(args: readonly string[]): Promise<boolean> {
  const command = new Deno.Command(Deno.execPath(), {
    cwd: ROOT,
    args: ["test", "--allow-all", ...args],
  });
  return (await command.spawn().status).success;
}

const runs = Deno.args.length > 0
  ? [Deno.args]
  : [["--parallel", "--ignore=tests/e2e", "tests"], ["--permit-no-files", "tests/e2e"]];
let isGood = true;
// All of them, whatever the ones before found: one look at the end tells everything.
for (const args of runs) isGood = await test(args) && isGood;
Deno.exit(isGood ? 0 : 1);
