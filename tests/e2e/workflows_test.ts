import { assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { run } from "../support/process.ts";
import { ROOT } from "../support/proxy_process.ts";
import { toolTest, which } from "../support/requirements.ts";

const WORKFLOWS = join(ROOT, ".github/workflows");

toolTest("the workflows are valid for GitHub Actions", {
  needs: ["actionlint"],
  async fn() {
    const files = [...Deno.readDirSync(WORKFLOWS)].map(({ name }) => join(WORKFLOWS, name));
    const { code, stdout, stderr } = await run(which("actionlint")!, ["-no-color", ...files], {
      cwd: ROOT,
    });
    assertEquals({ code, stdout, stderr }, { code: 0, stdout: "", stderr: "" });
  },
});

toolTest("an invalid workflow is found", {
  needs: ["actionlint"],
  async fn() {
    const text = await Deno.readTextFile(join(WORKFLOWS, "ci.yaml"));
    const file = await Deno.makeTempFile({ suffix: ".yaml" });
    try {
      await Deno.writeTextFile(file, text.replace("runs-on:", "run-on:"));
      const { code, stdout } = await run(which("actionlint")!, ["-no-color", file]);
      assertEquals(code, 1);
      assertMatch(stdout, /run-on/);
    } finally {
      await Deno.remove(file);
    }
  },
});

Deno.test("what the workflows name exists: files, tasks, and one version of Deno", async () => {
  const release = await Deno.readTextFile(join(WORKFLOWS, "release.yaml"));
  const ci = await Deno.readTextFile(join(WORKFLOWS, "ci.yaml"));
  const dockerfile = await Deno.readTextFile(join(ROOT, "Dockerfile"));
  const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const version = /DENO_VERSION=(\S+)/.exec(dockerfile)?.[1];
  assertEquals(/deno-version: (\S+)/.exec(release)?.[1], version);
  for (const [, task] of `${ci}${release}`.matchAll(/deno task (\w+)/g)) {
    assertEquals(typeof tasks[task!], "string", task);
  }
  for (const [, path] of ci.matchAll(/(?:sh |hashFiles\(')([\w./-]+)/g)) {
    assertEquals(Deno.statSync(join(ROOT, path!)).isFile, true, path);
  }
});
