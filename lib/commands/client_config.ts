/**
 * `config CLIENT`: prints the configuration that makes a client use this proxy.
 *
 * @module
 */
import { clientConfig, type ClientKind, type Instance } from "../operator/client_config.ts";
import type { Output } from "./output.ts";

/** Options for {@linkcode runClientConfig}. */
export interface ClientConfigOptions {
  readonly kind: ClientKind;
  readonly instance: Instance;
  readonly json: boolean;
  readonly output: Output;
}

/**
 * Prints the files. If there is a single file, standard output contains nothing else, so that it can be
 * redirected. Hints go to standard error. Returns the exit code 0.
 */
export function runClientConfig({ kind, instance, json, output }: ClientConfigOptions): number {
  const config = clientConfig(kind, instance);
  const { files, steps } = config;
  if (json) {
    output.print(JSON.stringify(config));
    return 0;
  }
  const isOne = files.length === 1;
  for (const { path, text } of files) {
    if (isOne) output.printError(`# ${path}`);
    else output.print(`# ${path}`);
    output.print(isOne ? text.trimEnd() : text);
  }
  if (steps.length > 0) output.printError("# Then:");
  for (const step of steps) output.printError(step);
  return 0;
}
