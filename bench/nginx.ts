/**
 * nginx with a configuration of ours.
 *
 * @module
 */
import { join } from "@std/path";
import { which } from "../tests/support/requirements.ts";
import { type Program, start } from "./program.ts";

/** Starts nginx with one worker and the given `http` block; its files are in `dir`. */
export async function startNginx(dir: string, http: string): Promise<Program> {
  await Deno.mkdir(dir, { recursive: true });
  const path = join(dir, "nginx.conf");
  const temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `  ${name}_temp_path ${join(dir, name)};`).join("\n");
  await Deno.writeTextFile(
    path,
    `user root;
worker_processes 1;
daemon off;
pid ${join(dir, "pid")};
error_log ${join(dir, "error.log")};
events { worker_connections 4096; }
http {
${temp}
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  client_body_in_file_only off;
${http}
}
`,
  );
  return start(which("nginx") ?? "nginx", { args: ["-c", path, "-e", join(dir, "error.log")] });
}
