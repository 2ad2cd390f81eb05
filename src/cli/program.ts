import { Command, Option } from 'commander';
import { specOf } from '#api/operations.ts';
import { defaultOf, fullCommands, type OperationCommand, shortCommands } from '#cli/commands.ts';
import { completionScript, type Shell, shells } from '#cli/completion.ts';
import type { ExitCode } from '#cli/failure.ts';
import { type Flag, flagsOf } from '#cli/flags.ts';
import { runEvents, runKeyNew, runKeyShow } from '#cli/own-commands.ts';
import { type OperationOptions, runOperation } from '#cli/run-operation.ts';
import type { Terminal } from '#cli/terminal.ts';
import { ruleOf } from '#state/policy.ts';

export interface ProgramOptions {
  readonly terminal: Terminal;
  readonly version: string;
  /** Told how the command ended, when that is not success. */
  readonly exit: (code: ExitCode) => void;
}

/** The whole of beosctl, made from the tables of the contract: a command for each operation, and the few of its own. */
export function buildProgram(options: ProgramOptions): Command {
  const { terminal, version } = options;
  const program = new Command('beosctl')
    .description(
      'Talks to beosd, the system daemon of beOS Pro: over its unix socket, or to --node URL with a key.',
    )
    .version(version, '-V, --version', 'print the version')
    .enablePositionalOptions()
    .showHelpAfterError('(add --help for what there is)')
    .configureOutput({ writeOut: terminal.out, writeErr: terminal.err })
    .configureHelp({ helpWidth: 110 })
    .exitOverride();
  addConnection(program);
  program.commandsGroup('Often used:');
  for (const command of shortCommands()) program.addCommand(operationCommand(command, options));
  addOwnCommands(program, options);
  program.commandsGroup('Everything, by subject:');
  for (const command of fullCommands()) addFullCommand(program, command, options);
  for (const each of program.commands) inheritDown(each, program);
  return program;
}

/** The subjects are commands that hold the operations: `beosctl command change-host`. */
function addFullCommand(program: Command, command: OperationCommand, options: ProgramOptions): void {
  const [subject = '', verb = ''] = command.words;
  let group = program.commands.find((each) => each.name() === subject);
  if (group === undefined) {
    group = new Command(subject).summary(`${subject} operations`).description(`Operations on ${subject}.`);
    program.addCommand(group);
  }
  const isDefault = defaultOf[subject] === verb;
  group.addCommand(operationCommand({ ...command, words: [verb] }, options), { isDefault });
}

function inheritDown(command: Command, parent: Command): void {
  command.copyInheritedSettings(parent);
  for (const each of command.commands) inheritDown(each, command);
}

function operationCommand({ words, operation }: OperationCommand, options: ProgramOptions): Command {
  const spec = specOf(operation);
  const command = new Command(words.at(-1)).summary(spec.summary).description(spec.summary);
  for (const flag of flagsOf(spec)) {
    if (flag.place === 'params') command.argument(`<${flag.name}>`, flag.description);
    else command.addOption(toOption(flag));
  }
  if (spec.body !== undefined)
    command.option('--file <path>', 'the whole input as a JSON object; - reads standard input');
  if (spec.dryRun) command.option('--dry-run', 'print what would be done, and change nothing');
  if (ruleOf(operation).lane !== undefined) command.option('--no-wait', 'do not wait for the job to end');
  if (operation === 'command.install') {
    command.option(
      '--claim-code-file <path>',
      'the code on the console, where the node asks for one; - asks for it',
    );
  }
  if (operation === 'jobs.get') command.option('--follow', 'show progress until the job ends');
  if (spec.raw === undefined) command.option('--json', 'print JSON for programs');
  addConnection(command);
  return command.action(async () => {
    const given = command.optsWithGlobals<OperationOptions>();
    const code = await runOperation(operation, command.args, given, options.terminal);
    if (code !== 0) options.exit(code);
  });
}

function toOption(flag: Flag): Option {
  const needed = flag.required ? ' (needed)' : '';
  switch (flag.kind) {
    case 'boolean':
      return new Option(`--${flag.name} [bool]`, flag.description).choices(['true', 'false']).preset('true');
    case 'secret': {
      const from = 'the file that holds it; - asks on the terminal or reads standard input';
      return new Option(
        `--${flag.name} <path>`,
        [flag.description, from].filter(Boolean).join(': ') + needed,
      );
    }
    case 'list':
      return new Option(`--${flag.name} <value...>`, flag.description + needed);
    case 'json':
      return new Option(`--${flag.name} <json>`, flag.description + needed);
    case 'number':
    case 'text': {
      const option = new Option(
        `--${flag.name} <${flag.kind === 'text' ? 'value' : 'n'}>`,
        flag.description + needed,
      );
      return flag.choices === undefined ? option : option.choices([...flag.choices]);
    }
  }
}

function addConnection(command: Command): void {
  command
    .optionsGroup('Which node, and who asks:')
    .option('--node <url>', 'a node on the network, e.g. 10.0.0.5 or http://10.0.0.5:18088 (BEOSCTL_NODE)')
    .option('--key <file>', 'the key that signs (BEOSCTL_KEY; default ~/.config/beosd/key.json)')
    .option(
      '--socket <path>',
      'the unix socket of this machine (BEOSD_SOCKET; default /run/beosd/beosd.sock)',
    )
    .option('--legacy', 'sign in the form of the phone app');
}

function addOwnCommands(program: Command, { terminal }: ProgramOptions): void {
  const events = new Command('events')
    .summary('Print events as they happen')
    .description('Print events as they happen, across lost connections and restarts, until Ctrl-C.')
    .option('--last-event-id <n>', 'begin after this event')
    .option('--json', 'one JSON object a line');
  addConnection(events);
  program.addCommand(events.action(async () => await runEvents(events.optsWithGlobals(), terminal)));
  program.addCommand(keyCommand(terminal));
  const completion = new Command('completion')
    .summary('Print the completion script of a shell')
    .description('Print the completion script of a shell, e.g. source <(beosctl completion bash).')
    .argument('<shell>', shells.join(', '));
  completion.action((shell: string) => {
    const known = shells.find((each) => each === shell);
    if (known === undefined)
      completion.error(`error: no completion for ${shell}; there are ${shells.join(', ')}`);
    terminal.out(completionScript(program, known as Shell));
  });
  program.addCommand(completion);
}

function keyCommand(terminal: Terminal): Command {
  const key = new Command('key')
    .summary('Make or show the key that signs')
    .description('The key that signs.');
  const make = new Command('new')
    .summary('Make a key')
    .description('Make a key in a file that only you can read. An existing file is never overwritten.')
    .option('--name <name>', 'user@domain known to a DID gate; default: a name that the key certifies itself')
    .addOption(new Option('--kind <kind>', 'the curve').choices(['Ed25519', 'secp256k1']).default('Ed25519'))
    .option('--key <file>', 'where to (default ~/.config/beosd/key.json)')
    .option('--json', 'print JSON for programs');
  const show = new Command('show')
    .summary('Show name and DID of the key')
    .description('Show name and DID of the key; never its secret.')
    .option('--key <file>', 'which (BEOSCTL_KEY; default ~/.config/beosd/key.json)')
    .option('--json', 'print JSON for programs');
  key.addCommand(make.action(() => runKeyNew(make.optsWithGlobals(), terminal)));
  key.addCommand(show.action(() => runKeyShow(show.optsWithGlobals(), terminal)));
  return key;
}
