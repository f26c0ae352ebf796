/**
 * The command line. Only this file reads arguments and the environment, listens and handles signals.
 *
 * @module
 */
import { type CommandLine, HELP, readCommandLine } from "./lib/commands/command_line.ts";
import type { Operated } from "./lib/commands/operate.ts";
import type { Output } from "./lib/commands/output.ts";
import { describePermissions, narrowPermissions } from "./lib/commands/permissions.ts";
import { askHealth } from "./lib/server/health.ts";
import { type Config, ConfigError, parseConfig } from "./lib/config/config.ts";
import { describeConfig, settingsInForce } from "./lib/config/describe.ts";
import { OUTBOUND } from "./lib/config/warnings.ts";
import { handleUncaughtErrors } from "./lib/telemetry/uncaught_errors.ts";
import { listen as listenFor, type Listener } from "./lib/server/listener.ts";
import { programLog, startLogging } from "./lib/telemetry/log.ts";
import { Proxy } from "./lib/proxy/proxy.ts";
import { VERSION } from "./lib/util/version.ts";

/** A second signal cut transfers off: what a shell says of a program that SIGINT ended. */
const EXIT_CUT = 130;

/**
 * Environment, file and flags as one configuration. What it does not need of the process's permissions is given back.
 * Throws a `ConfigError` with every problem.
 */
async function loadConfig({ flags, ...line }: CommandLine): Promise<Config> {
  const problems = [...line.problems];
  let file: Record<string, string> = {};
  const path = flags["env-file"];
  if (path) {
    const { parse } = await import("dotenv");
    try {
      file = parse(Deno.readTextFileSync(path));
    } catch (error) {
      problems.push(`--env-file: Cannot read: ${(error as Error).message}`);
    }
  }
  const own = Deno.env.toObject();
  for (const name of OUTBOUND) {
    // Deno reads these itself, and not before it first connects.
    if (file[name] && own[name] === undefined) Deno.env.set(name, file[name]);
  }
  const env = { ...file, ...own };
  if (flags.host) env["HOST"] = flags.host;
  if (flags.port) env["PORT"] = flags.port;
  try {
    const config = parseConfig(env, { file: Object.keys(file) });
    if (problems.length === 0) {
      narrowPermissions(config);
      return config;
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    problems.push(...error.problems);
  }
  throw new ConfigError(problems);
}

/** Listens until a signal comes, then lets transfers finish. Returns the exit code. */
async function serve(config: Config): Promise<number> {
  const tls = readTls(config);
  const endLogging = await startLogging(config.log);
  handleUncaughtErrors();
  programLog.debug("Files to read: {read}; to write: {write}", () => describePermissions(config));
  for (const warning of config.warnings) programLog.warn("{doubt}", { doubt: warning });
  const proxy = new Proxy(config);
  try {
    await proxy.ready;
    const server = await listen(config, { tls, proxy });
    const admin = await listenForOperator(config, proxy);
    const signals = stopSignals();
    await signals.first;
    programLog.info("Stopping: waiting for transfers", { seconds: config.shutdownTimeout / 1000 });
    const grace = config.shutdownTimeout;
    const isCut = await stop(server, { proxy, grace, cut: signals.second });
    await admin?.close();
    programLog.info(isCut ? "Stopped at once, by a second signal" : "Stopped");
    return isCut ? EXIT_CUT : 0;
  } catch (error) {
    programLog.error("Cannot start: {cause}", { cause: (error as Error).message });
    return 1;
  } finally {
    await endLogging();
  }
}

interface Tls {
  readonly cert: string;
  readonly key: string;
}

/** The certificate and key that are configured. Throws a `ConfigError` for what cannot be read. */
function readTls({ listen: { tls } }: Config): Tls | undefined {
  if (!tls) return undefined;
  const problems: string[] = [];
  const read = (name: string, path: string) => {
    try {
      return Deno.readTextFileSync(path);
    } catch (error) {
      problems.push(`${name}: Cannot read: ${(error as Error).message}`);
      return "";
    }
  };
  const pem = { cert: read("TLS_CERT", tls.cert), key: read("TLS_KEY", tls.key) };
  if (problems.length > 0) throw new ConfigError(problems);
  return pem;
}

async function listen(
  config: Config,
  { tls, proxy }: { tls: Tls | undefined; proxy: Proxy },
): Promise<Listener> {
  const { host: hostname, port } = config.listen;
  const urlOf = (address: { hostname: string; port: number }) => {
    const host = address.hostname.includes(":") ? `[${address.hostname}]` : address.hostname;
    return `${tls ? "https" : "http"}://${host}:${address.port}`;
  };
  const onListen = (address: Deno.NetAddr) => {
    programLog.info("Listening", {
      url: urlOf(address),
      version: VERSION,
      cache: config.cache?.dir ?? "off",
    });
  };
  try {
    return await listenFor(proxy, { hostname, port, tls, onListen });
  } catch (error) {
    const isTaken = error instanceof Deno.errors.AddrInUse;
    const reason = isTaken ? "the port is in use" : (error as Error).message;
    throw new Error(`Cannot listen at ${urlOf({ hostname, port })}: ${reason}`, { cause: error });
  }
}

/** The operator's listener, where there is to be one. Only one that was asked for is an error to lack. */
async function listenForOperator(
  { admin }: Config,
  proxy: Proxy,
): Promise<{ close(): Promise<void> } | undefined> {
  if (!admin) return undefined;
  // Loaded when the proxy answers already.
  const { startAdmin } = await import("./lib/admin/server.ts");
  try {
    const server = startAdmin(proxy, admin);
    const { hostname, port } = server.addr;
    programLog.info("Listening for the operator", { url: `http://${hostname}:${port}` });
    return server;
  } catch (error) {
    const where = `${admin.host}:${admin.port}`;
    const isTaken = error instanceof Deno.errors.AddrInUse;
    const reason = isTaken ? "the port is in use" : (error as Error).message;
    const problem = `Cannot listen for the operator at ${where}: ${reason}`;
    if (admin.isWanted) throw new Error(problem, { cause: error });
    programLog.warn("{problem}: set ADMIN_ADDR, or off", { problem });
  }
}

/** Signals that ask to stop: the first begins it, the second cuts it short. */
function stopSignals(): { first: Promise<void>; second: Promise<void> } {
  const arrivals = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
  let count = 0;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    // Windows knows only SIGINT of these.
    if (Deno.build.os === "windows" && signal === "SIGTERM") continue;
    Deno.addSignalListener(signal, () => arrivals[count++]?.resolve());
  }
  return { first: arrivals[0].promise, second: arrivals[1].promise };
}

/**
 * Stops accepting at once; transfers have `grace` ms to finish, and fills what is left of it. Returns
 * whether `cut` came before that.
 */
async function stop(
  server: Listener,
  { proxy, grace, cut }: { proxy: Proxy; grace: number; cut: Promise<void> },
): Promise<boolean> {
  const until = performance.now() + grace;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<void>((resolve) => timer = setTimeout(resolve, grace));
  const finishing = Promise.race([server.shutdown(), limit]).then(async () => {
    await proxy.close({ grace: Math.max(0, until - performance.now()) });
    return false;
  });
  const isCut = await Promise.race([finishing, cut.then(() => true)]);
  clearTimeout(timer);
  if (isCut) await proxy.close();
  return isCut;
}

/** Standard output and, where somebody watches it, the terminal behind standard error. */
function output(): Output {
  const isWatched = Deno.stderr.isTerminal();
  const encoder = new TextEncoder();
  const write = (text: string) => {
    const bytes = encoder.encode(text);
    for (let done = 0; done < bytes.byteLength;) {
      done += Deno.stderr.writeSync(bytes.subarray(done));
    }
  };
  return {
    print: (line) => console.log(line),
    printError: (line) => console.error(line),
    terminal: isWatched ? { columns: Deno.consoleSize().columns, write } : undefined,
  };
}

/** A command on the cache, by whoever has it open. Returns the exit code. */
async function onCache(
  line: CommandLine,
  work: (operations: Operated["operations"], signal: AbortSignal) => Promise<number>,
): Promise<number> {
  const { operate } = await import("./lib/commands/operate.ts");
  const config = await loadConfig(line);
  const interrupted = new AbortController();
  stopSignals().first.then(() => interrupted.abort(new Error("Interrupted")));
  try {
    const operated = await operate(config, { creates: line.command === "warm" });
    try {
      return await work(operated.operations, interrupted.signal);
    } finally {
      await operated.close();
    }
  } catch (error) {
    console.error((error as Error).message);
    return interrupted.signal.aborted ? EXIT_CUT : 1;
  }
}

async function run(line: CommandLine): Promise<number> {
  if (line.problems.length > 0) await loadConfig(line); // throws them all
  const { command, args, flags: { json, platforms, url } } = line;
  switch (command) {
    case "help":
      console.log(HELP);
      return 0;
    case "version":
      console.log(VERSION);
      return 0;
    case "config": {
      const config = await loadConfig(line);
      if (!line.client) {
        for (const warning of config.warnings) console.error(warning);
        console.log(json ? JSON.stringify(settingsInForce(config)) : describeConfig(config));
        return 0;
      }
      const { runClientConfig } = await import("./lib/commands/client_config.ts");
      const { instanceOf } = await import("./lib/operator/client_config.ts");
      const instance = instanceOf(config, url);
      return runClientConfig({ kind: line.client, instance, json, output: output() });
    }
    case "health":
      return await askHealth((await loadConfig(line)).listen) ? 0 : 1;
    case "serve":
      return await serve(await loadConfig(line));
    case "warm": {
      const { runWarm } = await import("./lib/commands/warm.ts");
      return await onCache(
        line,
        (operations, signal) =>
          runWarm({ operations, images: args, platforms, json, output: output(), signal }),
      );
    }
    case "ls": {
      const { runList } = await import("./lib/commands/images.ts");
      return await onCache(
        line,
        (operations) => runList({ operations, patterns: args, json, output: output() }),
      );
    }
    case "rm": {
      const { runRemove } = await import("./lib/commands/images.ts");
      return await onCache(
        line,
        (operations) => runRemove({ operations, images: args, json, output: output() }),
      );
    }
    case "stats": {
      const { runStats } = await import("./lib/commands/stats.ts");
      return await onCache(line, (operations) => runStats({ operations, json, output: output() }));
    }
    case "verify": {
      const { runVerify } = await import("./lib/commands/verify.ts");
      const config = await loadConfig(line);
      const { print, printError, terminal } = output();
      const interrupted = new AbortController();
      stopSignals().first.then(() => interrupted.abort(new Error("Interrupted")));
      const printProgress = terminal && ((text: string) => terminal.write(`\r\x1b[K${text}`));
      const code = await runVerify({
        config,
        json,
        print,
        printError,
        printProgress,
        signal: interrupted.signal,
      });
      terminal?.write("\r\x1b[K");
      return interrupted.signal.aborted ? EXIT_CUT : code;
    }
  }
}

/** Runs the command line `args`. Returns the exit code: 2 for a command line or configuration to mend. */
async function main(args: readonly string[]): Promise<number> {
  try {
    return await run(readCommandLine(args));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const problem of error.problems) console.error(problem);
    return 2;
  }
}

/** New files are their owner's, where Deno may say so: the cache's are in any case. */
function keepPrivate(): void {
  const mayMask = Deno.build.os !== "windows" &&
    Deno.permissions?.querySync({ name: "sys" }).state === "granted";
  if (mayMask) Deno.umask(0o077);
}

if (import.meta.main) {
  keepPrivate();
  Deno.exit(await main(Deno.args));
}
