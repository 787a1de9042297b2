"""What is claimed of the students of a graph, a recipe that is run whole, each beside its control."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What is claimed of a student of a graph, beside another; both are named as their evaluations. Their metric is 0
    or 1 unless `measure` says another; `less` where a lower figure is the better one."""

    after: str
    method: str
    claim: str
    student: str
    beside: str
    control: str
    measure: str = "percent right"
    less: bool = False


def near(after: str, method: str, claim: str, student: str, beside: str, control: str) -> Claim:
    """A claim about clouds of points."""
    return Claim(after, method, claim, student, beside, control, "sliced Wasserstein", less=True)


ANY, RIGHT = "any answers, as many tokens", "right answers to any prompts, as many tokens"
KL, FULL = "objective divergence.forward", "a student as large as the teacher, the same rows, as many steps"
OWN = "any of its own answers, as many tokens"
SOFT, LABELS = "labels and the teacher's distribution", "the labels alone"
ALONE = "cross-entropy alone"
IOU = "percent intersection over union"
# A graph is `recipes/<name>.yaml`.
# fmt: off
GRAPHS = {
    "answers": (
        Claim("rejection sampling", "scorer verifier.correct", "Right answers teach more.",
              "verified", "random", ANY),
        Claim("Symbolic KD", "scorer critic.linear", "Answers that a critic believes, told of a tenth, teach more.",
              "critic", "random", ANY),
        Claim("NeuroComparatives", "scorer consistency.uncontradicted", "Answers that most siblings share teach more.",
              "vote", "random", ANY),
        Claim("LightGen", "selector sampling.random", "Many prompts with an answer each teach more than few with many.",
              "random", "repeated", "all answers to an eighth of the prompts, as many tokens"),
    ),
    "prompts": (
        Claim("DDK", "mixture weights.ddk", "Domains by their gap in perplexity teach more.",
              "ddk", "random", RIGHT),
        Claim("AlphaMed", "scorer passing.level", "What the student solves now and then (L2 to L5) teaches more.",
              "levels", "random", RIGHT),
        Claim("MiniPLM", "selector rank.miniplm", "What the teacher knows and the student does not teaches more.",
              "miniplm", "random", RIGHT),
        Claim("s1", "selector reasoning.s1", "Long answers to what the student does not solve teach more.",
              "s1", "random", RIGHT),
    ),
    "imitation": (
        Claim("I2D2", "scorer critic.linear", "Two rounds on own answers that a critic believes make a student better.",
              "two", "base", "the student before"),
        Claim("I2D2", "scorer critic.linear", "In two rounds, its own answers that a critic believes teach it more.",
              "two", "plain_two", OWN),
    ),
    "masked": (
        Claim("DMJD", "augmentation masks.disjoint", "Disjoint masks, and what is seen beside, make a better encoder.",
              "dmjd", "random", "two random masks, in as many steps"),
        Claim("self-distillation for further pre-training", "transform merge.taps",
              "Further pre-training beside what a model of it made of the pictures makes a better encoder.",
              "itself", "further", "further pre-training alone, from the same model"),
    ),
    "experts": (
        Claim("GPFM", "objective feature.expert", "The states of two experts of a style each teach beside few classes.",
              "experts", "labels", LABELS),
        Claim("MST-Distill", "objective routing.gate", "A gate between two experts teaches more than their mean.",
              "gate", "mean", "the mean of both distributions"),
        Claim("VL2V-ADiP", "objective feature.cosine", "An expert's state and what it makes of the class teach more.",
              "words", "labels", LABELS),
        Claim("optimization trajectory", "objective feature.trajectory",
              "A head that both styles would train alike knows the one without classes better.",
              "alike", "pseudo", "the classes that the first expert gives"),
    ),
    "pair": (
        Claim("RveRNet", "builder encoders.fused", "Two halves joined, each trained alone first, are better than one.",
              "both", "thing", "the half that shows the thing"),
        Claim("RveRNet", "builder encoders.fused", "What the halves learnt alone helps the two that are joined.",
              "both", "blank", "the same network from random weights"),
    ),
    "dna": (
        Claim("HAD", "network language.masked", "Hidden letters and a teacher's states make a better encoder.",
              "had", "mlm", "hidden letters alone"),
        Claim("HAD", "network language.masked", "Hidden letters and a teacher's states make a better encoder.",
              "had", "distil", "the teacher's states alone"),
    ),
    "supernet": (
        Claim("AutoDistil", "augmentation architecture.sampled",
              "A small network that is taken out of one of many knows as much.",
              "taken_small", "alone_small", "one of its size that learnt by itself, in as many steps"),
        Claim("AutoDistil", "augmentation architecture.sampled", "So does a middle one that is taken out of the same.",
              "taken_middle", "alone_middle", "one of its size that learnt by itself, in as many steps"),
        Claim("AutoDistil", "objective relation.within", "How letters attend to each other makes a better encoder.",
              "alone_small", "blank_small", "an encoder of random weights"),
    ),
    "rounds": (
        Claim("PGKD", "selector mixture.weighted", "Rounds that ask most where the student is behind teach more.",
              "led_3", "blind_3", "the same three rounds, an equal share for every domain"),
        Claim("PGKD", "selector mixture.weighted", "Three rounds teach more than one of the same budget.",
              "led_3", "once", "one round of three times the prompts and tokens"),
    ),
    "pictures_logits": (
        Claim("SSLD", "objective divergence.forward", "Of wrong labels and a teacher, it alone teaches more.",
              "label_free", "kd", SOFT),
        Claim("PLD", "objective ranking.pld", "The label first, then all classes in the teacher's order, teach more.",
              "pld", "kd", SOFT),
        Claim("PLD", "objective ranking.pld", "The same of a teacher at temperature 4.",
              "pld_4", "kd", SOFT),
        Claim("NKD", "objective divergence.nkd", "The other classes as a distribution of their own teach more.",
              "nkd", "kd", SOFT),
        Claim("TAID", "objective schedule.taid", "A target on its way to the teacher teaches more.",
              "taid", "label_free", "forward KL to the teacher at once"),
        Claim("TAID", "objective schedule.taid", "A target that moves by the loss teaches more.",
              "taid", "linear", "one that moves evenly"),
        Claim("BD-KD", "objective divergence.balanced", "Both KL, as each is needed, teach more.",
              "balanced", "forward", "forward KL"),
        Claim("BD-KD", "objective divergence.balanced", "Both KL, as each is needed, teach more.",
              "balanced", "reverse", "reverse KL"),
        Claim("mixup and KD", "augmentation mixing.mixup", "Of mixed pictures, a teacher teaches more.",
              "mixed", "kd", f"{SOFT}, no picture mixed"),
        Claim("mixup and KD", "objective divergence.standardised", "Logits over their deviation mend it.",
              "standardised_mixed", "mixed", f"{SOFT}, of as many mixed pictures"),
        Claim("mixup and KD", "objective divergence.standardised", "Without mixing, they teach more, too.",
              "standardised", "kd", SOFT),
        Claim("Even your teacher", "objective schedule.guidance", "Labels in the share that suits both teach more.",
              "guided", "even", "labels and teacher in equal parts"),
        Claim("PS-KD", "objective schedule.ps_kd", "Wrong labels and the last epoch's answers teach more.",
              "ps_kd", "labels", LABELS),
        Claim("PS-KD", "objective schedule.ps_kd", "Wrong labels and the last epoch's answers teach more.",
              "ps_kd", "smoothed", "smoothed labels"),
        Claim("USKD", "objective schedule.uskd", "A student's own soft labels teach more.",
              "uskd", "labels", LABELS),
    ),
    "pictures_features": (
        Claim("FitNets", "objective feature.hidden", "The teacher's state teaches beside its distribution.",
              "hidden", "kd", SOFT),
        Claim("TRG", "objective feature.trg", "How pictures of a long tail lie to each other teaches beside it.",
              "trg", "kd", SOFT),
        Claim("TRG", "objective feature.trg", "Neighbours teach more than the similarities of all.",
              "trg", "gram", "similarity-preserving distillation"),
        Claim("OFA-KD", "objective exits.ofa", "An exit that learns the distribution makes a better student.",
              "exit", "kd", SOFT),
        Claim("ND", "objective feature.nd", "A state that turns to the mean of its class makes a better student.",
              "nd", "kd", SOFT),
        Claim("ND", "objective feature.nd", "The same beside a student that learns the states.",
              "nd", "hidden", "labels, distribution and state"),
        Claim("ProC-KD", "transform prototypes.codebook", "Of other classes, prototypes of states teach more.",
              "others_prototype", "others_hidden", "its states, no prototypes"),
        Claim("ProC-KD", "transform prototypes.codebook", "Of other classes, a teacher's states teach beside labels.",
              "others_hidden", "others", LABELS),
    ),
    "pictures_heads": (
        Claim("LELP", "transform subclasses.lelp", "Five kinds of each of two classes teach more than the classes.",
              "lelp", "coarse_4", "the distribution over the classes at temperature 4"),
        Claim("LELP", "transform subclasses.lelp", "The same at temperature 1.",
              "lelp", "coarse", "the distribution over the classes"),
        Claim("MaKD", "transform aspects.grouped", "A teacher's answers to questions teach beside few labels.",
              "aspects", "labels", LABELS),
        Claim("MaKD", "transform aspects.grouped", "Questions that mean something teach more.",
              "aspects", "shuffled", "questions of as many classes that have nothing in common"),
    ),
    "pictures_few": (
        Claim("DHO", "builder heads.add", "With some ten labels, a head for each beats one for labels and teacher.",
              "dho_ten", "single_ten", "one head, the same two losses"),
        Claim("DHO", "builder heads.add", "With some ten labels, two heads beat the labels alone.",
              "dho_ten", "labels_ten", LABELS),
        Claim("DHO", "builder heads.add", "With some fifty labels, a head for each beats one for labels and teacher.",
              "dho_fifty", "single_fifty", "one head, the same two losses"),
        Claim("DHO", "builder heads.add", "With some fifty labels, two heads beat the labels alone.",
              "dho_fifty", "labels_fifty", LABELS),
        Claim("PCoreSet", "selector diversity.pcoreset", "Thirty labels far apart in probabilities teach more.",
              "pcoreset", "random", "thirty labels of any pictures"),
        Claim("PCoreSet", "selector diversity.pcoreset", "The same beside the least sure.",
              "pcoreset", "entropy", "thirty labels where the student is least sure"),
    ),
    "pictures_teachers": (
        Claim("DistillNearest", "selector teachers.task_similarity", "The teacher of the most alike task teaches more.",
              "nearest", "uniform", "all four teachers, each as much"),
        Claim("DistillWeighted", "selector teachers.task_similarity", "All, each by how alike its task is, teach more.",
              "weighted", "uniform", "all four teachers, each as much"),
        Claim("DistillNearest", "selector teachers.task_similarity", "An alike teacher teaches more than forty labels.",
              "nearest", "labels", LABELS),
        Claim("DistillNearest", "selector teachers.task_similarity", "The most alike teacher teaches more.",
              "nearest", "farthest", "the teacher of negatives"),
    ),
    "pictures_web": (
        Claim("KD3", "selector rank.top", "What teacher and student are surest of together teaches more.",
              "dynamic", "sure", "as many pictures that the teacher is surest of"),
        Claim("KD3", "selector rank.top", "Half of a pool from anywhere teaches more than the whole.",
              "dynamic", "whole", "all pictures, as many steps"),
    ),
    "pictures_moved": (
        Claim("HARD", "augmentation moves.led", "Moves on which the two differ teach more of moved ones.",
              "hard", "kd", "the pictures as they are"),
        Claim("HARD", "augmentation moves.led", "Led moves teach more than random ones.",
              "hard", "random", "random moves of the same range"),
        Claim("HARD", "augmentation moves.led", "On pictures that are not moved, a student loses nothing.",
              "hard_middle", "kd_middle", "the pictures as they are"),
    ),
    "active": (
        Claim("PCoreSet", "selector diversity.pcoreset",
              "In three rounds, labels asked for where a dual-head student's answers are spread teach more.",
              "active_3", "chance_3", "as many labels by chance, the same teacher"),
    ),
    "self_imitation": (
        Claim("I2D2", "scorer verifier.correct", "Three rounds on its own right answers make a student better.",
              "own_3", "base", "the student before"),
        Claim("I2D2", "scorer verifier.correct", "In three rounds, its own right answers teach it more than any.",
              "own_3", "any_3", OWN),
    ),
    "bandit": (
        Claim("KNEXA-FL", "mixture bandit.linucb", "A bandit over teachers and domains, in eight rounds, teaches more.",
              "led_8", "even_8", "eight rounds of both teachers and all domains alike, as many tokens"),
    ),
    "refresh": (
        Claim("Teacher hacking", "objective supervised.cross_entropy",
              "A teacher that is asked anew in every round teaches more.",
              "fresh_3", "fixed_3", "three rounds over what it said once, as many steps"),
    ),
    "efficient": (
        Claim("Efficient transformers", KL, "A student of a thirteenth of the size is as good.",
              "small", "full", FULL),
        Claim("Efficient transformers", KL, "A student of a quarter of the size is as good.",
              "half", "full", FULL),
        Claim("Efficient transformers", KL, "A small student learns more from a distribution.",
              "small", "small_text", "the teacher's answers alone, as many steps"),
        Claim("Efficient transformers", "evaluator cost.latency", "A student of a thirteenth of the size is faster.",
              "small_cost", "full_cost", FULL, "hundredths of a second an answer", True),
    ),
    "conformance": (
        Claim("survey: labeling", "scorer verifier.correct", "The teacher's right answers teach more.",
              "label", "random", ANY),
        Claim("survey: expansion", "operator expansion.instruct", "Right answers to written tasks teach more.",
              "expanded", "random", ANY),
        Claim("survey: curation", "source procedural.tasks", "Right answers to the weak kinds of tasks teach more.",
              "curated", "random", ANY),
        Claim("survey: features", KL, "The teacher's distribution on right answers teaches more.",
              "feature", "random", ANY),
        Claim("survey: feedback", "scorer verifier.correct", "Its own answers that a verifier finds right teach more.",
              "right", "random", ANY),
        Claim("survey: feedback", "objective preference.dpo", "Its own answers, right ones against wrong, teach more.",
              "preferred", "random", ANY),
        Claim("survey: feedback", "objective policy.group_relative", "Fifty steps on own answers' rewards teach more.",
              "bandit", "random", "any answers of the teacher, five times the tokens"),
        Claim("survey: self-knowledge", "scorer verifier.correct", "A round on its own right answers teaches more.",
              "self", "plain", OWN),
    ),
    "features": (
        Claim("DHO", "builder heads.add", "Of words with wrong labels, a head for labels and one for the teacher help.",
              "dho", "kd", f"one head, {SOFT}"),
        Claim("LELP", "objective targets.distribution", "Two kinds of each class of words teach more than the classes.",
              "lelp", "kd", SOFT),
        Claim("ND", "objective feature.nd", "A state that turns to the mean of its class teaches beside it.",
              "nd", "kd", SOFT),
        Claim("similarity-preserving KD", "objective relation.gram", "How words lie to each other teaches beside it.",
              "gram", "kd", SOFT),
    ),
    "across_tokenizers": (
        Claim("GOLD", "objective across.gold", "A teacher of other tokens teaches beside cross-entropy.",
              "gold", "sft", ALONE),
        Claim("ULD", "objective across.uld", "Sorted probabilities of a teacher of other tokens teach beside it.",
              "uld", "sft", ALONE),
        Claim("InfiGFusion", "objective graph.on_logits", "Which logits rise together teaches beside that.",
              "fused", "uld", "cross-entropy and ULD"),
    ),
    "objectives": (
        Claim("AdaSPEC", "objective tokens.adaspec", "Tokens that a distilled student learnt teach more than all.",
              "adaspec", "forward", "forward KL on all tokens"),
        Claim("TSD-KD", "objective tokens.gated", "A gate, candidates in order and less entropy teach more.",
              "tsd", "forward", "forward KL"),
        Claim("Talking Models", "objective exchange.messages", "Messages to the teacher and back teach beside it.",
              "messages", "sft", ALONE),
        Claim("IPO", "objective pairs.ipo", "Right answers against wrong ones teach more than the right ones.",
              "ipo", "more", "cross-entropy on the right ones, as many passes"),
        Claim("ADPO", "objective listwise.adpo", "Answers as a list teach more than the right ones.",
              "adpo", "more", "cross-entropy on the right ones, as many passes"),
    ),
    "graphs": (
        Claim("GLNN", "objective divergence.forward", "An MLP learns of a graph from what a GCN says of its nodes.",
              "glnn", "mlp", "the classes alone"),
        Claim("FF-G2M", "objective links.high", "What a GCN says of neighbours, and how they differ, teaches an MLP.",
              "ffg2m", "mlp", "the classes alone"),
        Claim("FF-G2M", "objective links.high", "It teaches more than what the GCN says of the nodes by themselves.",
              "ffg2m", "glnn", "GLNN"),
        Claim("FF-G2M", "objective links.high", "How neighbours differ teaches beside what they have in common.",
              "ffg2m", "low", "the low frequencies alone"),
        Claim("FF-G2M", "objective links.low", "What they have in common teaches beside how they differ.",
              "ffg2m", "high", "the high frequencies alone"),
    ),
    "points": (
        near("SIM", "objective score.implicit", "A generator of one step is nearer than a teacher in four.",
             "sim", "four_steps", "the teacher in four steps"),
        near("SIM", "objective score.implicit", "It is nearer than its teacher in one step.",
             "sim", "one_step", "the teacher in one step"),
        near("SIM", "objective score.implicit", "The pseudo-Huber distance of scores is better than the squared one.",
             "sim", "squared", "the squared distance (SiD)"),
        near("SIM", "objective score.implicit", "It is nearer than one that learnt from stored pairs.",
             "sim", "regression", "regression on pairs of noise and what the teacher makes of it"),
        near("BOOT", "objective score.bootstrap", "A generator that learns its path is nearer than in one step.",
             "boot", "one_step", "the teacher in one step"),
        near("BOOT", "objective score.bootstrap", "It is nearer than its teacher in four steps.",
             "boot", "four_steps", "the teacher in four steps"),
        near("BOOT", "objective score.bootstrap", "It is nearer than one that learnt from stored pairs.",
             "boot", "regression", "regression on pairs of noise and what the teacher makes of it"),
        near("Distillation-DPO", "objective score.preference", "To prefer the nearer of two makes it nearer.",
             "preference", "distribution", "the same step without winners and losers"),
        near("DreamPolish", "objective score.domain", "Points as weights vary as true ones where a model follows them.",
             "polished", "sds", "score distillation (SDS), as many steps"),
    ),
    "clouds": (
        Claim("distillation with contrast", "objective contrast.copies", "Nameless clouds teach what a head needs.",
              "both_told", "told", "a head on the network as it began"),
        Claim("distillation with contrast", "objective contrast.copies", "Contrast teaches beside DINO.",
              "both_told", "dino_told", "DINO alone"),
        Claim("distillation with contrast", "objective contrast.dino", "DINO teaches beside contrast.",
              "both_told", "contrast_told", "contrast alone"),
    ),
    "dense": (
        Claim("ACAM-KD", "objective feature.acam", "States under masks that are trained teach more about pixels.",
              "acam", "uniform", "the same states without masks", IOU),
        Claim("ACAM-KD", "objective feature.acam", "States under masks teach more than a distribution at every pixel.",
              "acam", "kd", "the distribution at every pixel", IOU),
    ),
    "scans": (
        Claim("SLidR", "objective contrast.nce", "Points that saw areas of nameless pictures teach a head more.",
              "slidr_told", "told", "a head on the network as it began", IOU),
        Claim("SLidR", "objective contrast.nce", "Areas teach it more than the pixel of each point.",
              "slidr_told", "pixels_told", "each point with its pixel", IOU),
        Claim("SLidR", "objective contrast.nce", "Where all of the network learns, they help it, too.",
              "slidr_tuned", "tuned", "the network as it began", IOU),
        Claim("SLidR", "objective contrast.nce", "There, areas teach it more than pixels.",
              "slidr_tuned", "pixels_tuned", "each point with its pixel", IOU),
    ),
    "figures": (
        Claim("DOPE", "network dense.keypoints", "What experts of parts say of whole figures teaches more.",
              "dope", "parts", "labels of one part a figure, as many rows"),
    ),
    "scenes": (
        Claim("Visual Program Distillation", "verifier programs.answer", "Programs that say the label teach more.",
              "verified", "unverified", "programs as they come, as many"),
        Claim("Visual Program Distillation", "verifier programs.answer", "Programs teach more than answers alone.",
              "verified", "answers", "the right answers without programs, as many"),
    ),
    "drawings": (
        Claim("LightGen", "source shapes.drawing", "Many captions teach to draw more than many drawings of few.",
              "many", "few", "a tenth of the captions, as many rows trained"),
    ),
}
# fmt: on
