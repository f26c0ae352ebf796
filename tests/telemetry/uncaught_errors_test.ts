import { assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { run } from "../support/process.ts";
import { baseEnv, ROOT } from "../support/proxy_process.ts";

const PROGRAM = `
  import { startLogging } from "${new URL("../../lib/telemetry/log.ts", import.meta.url)}";
  import { handleUncaughtErrors } from "${new URL(
  "../../lib/telemetry/uncaught_errors.ts",
  import.meta.url,
)}";
  const end = await startLogging({ level: "info", format: "text" });
  handleUncaughtErrors();
  Promise.reject(new Error("nobody awaits this"));
  setTimeout(() => { throw new TypeError("thrown from a timer"); });
  setTimeout(async () => { await end(); console.log("still here"); }, 1);
`;

Deno.test("an error that nobody caught is logged, and the process goes on", async () => {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(file, PROGRAM);
  const { code, stdout, stderr } = await run(
    Deno.execPath(),
    ["run", "--no-check", "--config", join(ROOT, "deno.json"), file],
    { env: baseEnv(), clearEnv: true },
  );
  await Deno.remove(file);
  assertEquals([code, stderr], [0, ""]);
  const [last, ...told] = stdout.trimEnd().split("\n").reverse();
  assertEquals(last, "still here");
  // Which of the two comes first is Deno's to say.
  const [first, second] = told.map((line) => line.split("going on: ")[1] ?? line).toSorted();
  assertMatch(first!, /^Error: nobody awaits this\\n/);
  assertMatch(second!, /^TypeError: thrown from a timer\\n/);
  for (const line of told) assertMatch(line, / error program Nobody caught an error, /);
});
