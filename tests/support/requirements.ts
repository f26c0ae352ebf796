/**
 * Tests that need a program: skipped with its name where it is missing, failed where `CI=true`.
 *
 * @module
 */
import { join } from "@std/path";
import { ROOT } from "./proxy_process.ts";

/** A program on PATH or among the installed tools, or `root`: being the superuser on Linux. */
export type Tool =
  | "root"
  | "docker"
  | "dockerd"
  | "containerd"
  | "ctr"
  | "runc"
  | "skopeo"
  | "podman"
  | "umoci"
  | "docker-registry"
  | "nginx"
  | "caddy"
  | "redis-server"
  | "chromium"
  | "openssl"
  | "unshare"
  | "curl"
  | GoTool;

/** Built with Go by install.sh. */
const GO_TOOLS = [
  "actionlint",
  "crane",
  "regctl",
  "oras",
  "conformance",
  "registry",
  "versitygw",
  "buildkitd",
  "buildctl",
] as const;
type GoTool = typeof GO_TOOLS[number];

/** Where install.sh puts what it builds with Go. */
export const TOOLS_DIR: string = join(ROOT, "tests/e2e/.tools/bin");

/** The path of a program, or `undefined` where it is not installed. */
export function which(tool: string): string | undefined {
  const folders = [TOOLS_DIR, ...(Deno.env.get("PATH") ?? "").split(":"), "/usr/sbin", "/sbin"];
  return folders.map((folder) => join(folder, tool)).find(isFile);
}

/** Which of these are missing. */
export function missing(tools: readonly Tool[]): Tool[] {
  return tools.filter((tool) =>
    tool === "root" ? Deno.build.os !== "linux" || Deno.uid() !== 0 : which(tool) === undefined
  );
}

/** A test and the programs without which it says nothing. */
export interface ToolTest {
  readonly needs: readonly Tool[];
  readonly fn: (context: Deno.TestContext) => void | Promise<void>;
}

/**
 * `Deno.test` for a test that needs programs. Without them it is skipped, and its name says what it needs; where
 * `CI=true` it fails, unless what is missing can only be built with a Go that is not there either.
 */
export function toolTest(name: string, { needs, fn }: ToolTest): void {
  const absent = missing(needs);
  if (absent.length === 0) return Deno.test(name, fn);
  const canBeBuilt = which("go") !== undefined;
  const required = Deno.env.get("CI") === "true"
    ? absent.filter((tool) => canBeBuilt || !isGoTool(tool))
    : [];
  if (required.length === 0) {
    return Deno.test({ name: `${name} (needs ${absent.join(", ")})`, ignore: true, fn });
  }
  Deno.test(name, () => {
    throw new Error(`Required where CI=true, and missing: ${required.join(", ")}`);
  });
}

function isGoTool(tool: Tool): tool is GoTool {
  return GO_TOOLS.some((one) => one === tool);
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
