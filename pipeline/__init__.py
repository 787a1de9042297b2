"""Stillhouse: a data-centric distillation pipeline, as a graph of tables.

To read it, go from what the data is to what is done with it; a room imports only what stands above it here.

    contracts.py, errors.py, display.py    every table and column; what a run may end with; text made safe to show
    bounded.py    work in a child process with time and memory bounded
    sandbox.py    programs of others, where they can harm nothing
    tables/       ids, Parquet, SQL: what the data is
    core/         how a stage and a method are declared, found and run
    kinds/        what each kind of method is given and gives: read the one that you want to write
    text/, model/, memo/    text without a model; a model folder; what was asked before
    nets/         small models of this project's own
    gateway/      one address over HTTP
    origins/ builders/ sources/ rules/ operators/ verifiers/ backends/ scorers/ readers/ judges/ retrievers/ mixtures/
    selectors/ transforms/ objectives/ networks/ augmentations/ feeds/ evaluators/ exporters/ executors/
                  the methods, a file a family (`docs/extending.md`)
    asking/, training/, checking/, report/    what stages are made of
    laws/         what every method of a kind obeys
    stages/       one verb each
    plan/         `params.yaml` to instances
    viewing/      rows, where they come from and lead to, for people
    commands/     what people call

A word for each thing:

    section, entry     of `params.yaml`: `train:`, and `kd:` in it; `responses.entry` is the one of generate that asked
    workspace, pin     a folder with a map, parameters and data: a clone, or what `stillhouse new` made, which has a pin
                       for code: the package that its plan is of
    instance           an entry as DVC runs it, `train@kd`, written to `data/plan/` by plan
    arm                trainings that differ in nothing but their seeds: one line of the report
    table, part        rows of one schema in a folder; one of its files, with all that is about its prompts
    executor           who works on the parts of a table: this process, others, other machines; each has workers
    task               the work on an instance's parts in names and numbers, which any process can be told
    prompt             a conversation that is to be answered, with the reference if there is one; pools are made of them
    operator           what makes prompts of prompts, or of answers to them: parents and children
    verdict            the short answers to a question about answers; a judge makes scores of them
    knowledge          the answers to a pool, of which prompts of another are shown those that speak to them
    rule, drop         what says that a text is not to be used; a row that says of which prompt, and what shows it
    request, answer    one sample that is asked for, with a seed of its own; what came back for it
    thought            what a model says before its answer; the column `reasoning`
    response           a row: a prompt, who was asked, and the answer. Scores and selections are about responses
    score, quantities  one number for a response, higher or lower as its scorer says; the raw numbers it is made of
    rank               a kept response's number in an order of training, from easy to hard or any other
    ranks              of `run:`, processes that train one student together, each from a share of every step's rows; its
                       blocks lie over them with `shard`
    gap, mixture       how far a student is behind in a domain; the share of every domain in what follows
    label              what a person says of a response, good or bad, with a note
    gate               what lets a checked table pass to those that train on it, or stops the run
    example            a kept response in a student's tokens; the same with a teacher's distributions is signals
    place              where a loss stands: a token that is learnt, or a text that is to be named; one that is hidden
                       is to be found, and its outcome is known, another's is not
    view               the places of a batch as an objective sees them; `reads` says which fields
    tap                what a model computes on the way, at the places: `last`, or a module's name; what is put there
                       instead is what the rest of the model goes on from
    term, turn         an objective with its weight and whom it judges; terms, the modules they train, and for how long
    module             what learns: the student, what stands `beside` it, an objective's own (`Trainer.parts` in code)
    shadow             an average of the student that follows it and does not learn
    reporter           a tool for learning curves that a training writes for too, on request
    feed               what gives the rows of a step, if not the table alone
    augmentation       what makes other inputs of a step's rows, anew in every step
    exam, mark         a model, the items that it is judged on and whom beside; what an evaluator says of an item
    network, backend   how one kind of model is trained; what opens a model's folder and asks it
    head               what makes logits of a model's states; beside its own it may have others, in `heads/`
    builder, base      what makes a model of models; the one that it begins as, beside the donor of the rest
    transform          what makes signals of signals, by what the whole table says
    exporter, export   what writes rows or a model as another tool reads them; what it wrote, with a card
    card, form         a folder's `model.json`, who it is and what opens it; its `tokenizer/`, how a text is cut for it
    share, take        what a clone gives a remote of DVC's, by content and by run; what others then need not make
    home               the one machine that opens the memo; what works elsewhere has its calls made there
    memo               what was ever asked and read, by a key of all that decides it
"""

import os

# Set before any library reads them: the pipeline speaks to nobody it was not told to speak to.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
# A bar in a log file is a thousand lines; stages report progress themselves.
os.environ.setdefault("TQDM_DISABLE", "1")
