"""Options of loading a model, and of writing one again."""

from __future__ import annotations

from .schema import Callback, Choice, Flag, Option, Other, Text, Truth, Whole

KV_TYPES = ("f32", "f16", "q8_0")
REQUANTIZE = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
LOADS = "generate chat bench perplexity"  # commands that load a model
DRAFTS = "generate chat bench"  # commands that may load a draft model
PROGRESS = Callback("Callable[[float], object]")

MODEL = (
    Option("Model", "device", Choice(("auto", "cpu", "cuda"), 'Literal["auto", "cpu", "cuda"]'),
        "auto",
        '"cpu"; "cuda": as `n_gpu_layers` says, an error without a usable GPU; "auto": the same, '
        "but quietly on the CPU where there is no GPU, unless layers are asked for by number. "
        "`info.cpu_reason` says why",
        flag=Flag("--device", LOADS, "NAME",
            "auto: the first CUDA GPU, where there is one; cpu; cuda: fail without (default "
            "{default}).")),
    Option("Model", "n_threads", Whole(1, 256), None,
        "threads; fewer of them work while other processes want the cores and that is faster",
        none="one per core this process may use",
        flag=Flag("-t --threads", LOADS + " quantize", "N",
            "Threads, 1 to 256 (default {default}: one per core this process may use); fewer of "
            "them work while other processes want the cores and that is faster.", none=0)),
    Option("Model", "n_gpu_layers", Whole(0, 100_000, 'int | Literal["auto"]'), "auto",
        "the last so many layers, and with them the output head, run on the GPU; \"auto\": as many "
        "as fit. Load a draft model first: it gets its place first",
        flag=Flag("-ngl --gpu-layers --n-gpu-layers", LOADS + " inspect", "N",
            "Layers on the GPU, counted from the last; the output head goes with them. auto: as "
            "many as fit (default). A number that does not fit, or no GPU, is an error.")),
    Option("Model", "vram_budget", Whole(1, 2**60, "int | str"), None,
        "GPU memory that the models of this process may take together: weights, caches, work "
        'space. Bytes or a text such as "4GiB"',
        none="what is free",
        flag=Flag("--vram-budget", LOADS + " inspect", "SIZE",
            "GPU memory that weights, caches and work space may take, e.g. 4GiB (default: what is "
            "free).")),
    Option("Model", "n_ctx", Whole(2), None,
        "positions of the context of its decoders, unless they are given their own. On a GPU their "
        "cache is reserved now and cannot grow: a longer context is an error there",
        none="the model's own, at most 4096"),
    Option("Model", "kv_type", Choice(KV_TYPES, "KvType"), "f16",
        'elements of the key-value cache, "f32", "f16" or "q8_0"',
        flag=Flag("-ctk --cache-type-k --kv-type", LOADS + " inspect", "TYPE",
            "Elements of the KV cache: f32, f16, q8_0 (default {default}).")),
    Option("Model", "repack",
        Choice(("auto", "keep", "off"), 'Literal["auto", "keep", "off"]'), "auto",
        '"auto" repacks the weights in memory as the kernels want them; "keep" also writes them to '
        "a file as large as the model, which later loads map instead: a fast start, and processes "
        'share the memory; "off" leaves them as they are and packs them in every pass: slower, in '
        "little memory. All give the same results",
        flag=Flag("--repack", LOADS, "MODE",
            "keep: write the weights, repacked for the kernels, to ~/.cache/specdec-native/packed, "
            "from where later starts, with auto too, are faster and share memory. off: leave them "
            "in the model's file: slower, in little memory. Always the same results (default "
            "{default}).")),
    Option("Model", "check_tensors", Truth(), False,
        "read all weights now and refuse NaN and infinity",
        flag=Flag("--check-tensors", LOADS, text="Read all weights first and refuse NaN and "
            "infinity.")),
    Option("Model", "requantize", Choice(REQUANTIZE, "Requantize"), None,
        'rewrite matrices in this coarser format, "q4_0", "q4_1", "q5_0", "q5_1" or "q8_0", where '
        "that makes them smaller. The model gets faster and less exact: meant for draft models, "
        "whose mistakes cost time but never change the text",
        none="as they are",
        flag=Flag("--draft-quant", DRAFTS, "TYPE",
            "Rewrite the draft model's weights at load where that makes them smaller: q4_0, q4_1, "
            "q5_0, q5_1, q8_0.")),
    Option("Model", "on_progress", PROGRESS, None,
        "called with 0..1 while loading; an exception it raises ends the load", none="not called"),
)  # fmt: skip

QUANTIZE = (
    Option("quantize", "n_threads", Whole(1, 256), None, "threads; the bytes do not depend on them",
        none="one per core this process may use"),
    Option("quantize", "dry_run", Truth(), False,
        "only plan: nothing is written, and errors of tensors are 0",
        flag=Flag("--dry-run", "quantize",
            text="Show what each tensor would become, and the size.")),
    Option("quantize", "overwrite", Truth(), False, "replace `target` if it exists",
        flag=Flag("--force", "quantize", text="Replace OUT if it exists.")),
    Option("quantize", "pure", Truth(), False,
        "no mix: every matrix gets the type itself, where its rows fit",
        flag=Flag("--pure", "quantize",
            text="No mix: every matrix gets the type itself, where its rows fit.")),
    Option("quantize", "allow_requantize", Truth(), False, "quantise what is quantised already",
        flag=Flag("--allow-requantize", "quantize",
            text="Quantise what is quantised already; worse than starting from F16.")),
    Option("quantize", "leave_output_tensor", Truth(), False, "keep ``output.weight`` as it is",
        flag=Flag("--leave-output-tensor", "quantize", text="Keep output.weight as it is.")),
    Option("quantize", "output_tensor_type", Text(), None,
        "weight format of ``output.weight``, or of the embedding that stands in for it",
        none="as `type` says",
        flag=Flag("--output-tensor-type", "quantize", "TYPE",
            "Type of output.weight, or of the embedding that stands in for it.")),
    Option("quantize", "token_embedding_type", Text(), None,
        "weight format of ``token_embd.weight``",
        none="as `type` says",
        flag=Flag("--token-embedding-type", "quantize", "TYPE", "Type of token_embd.weight.")),
    Option("quantize", "split_max_size", Text(), None,
        "write parts ``NAME-00001-of-0000N.gguf`` with tensors of at most so many bytes each: "
        "\"2G\", \"500M\" (powers of 1000); what is larger has a part of its own",
        none="no limit",
        flag=Flag("--split-max-size", "quantize", "N(K|M|G)",
            "Write parts OUT-00001-of-0000N.gguf with tensors of at most so much each (powers of "
            "1000).")),
    Option("quantize", "split_max_tensors", Whole(1), None, "likewise, of at most so many tensors",
        none="no limit",
        flag=Flag("--split-max-tensors", "quantize", "N", "Write parts of at most N tensors.")),
    Option("quantize", "on_progress", PROGRESS, None,
        "called with 0..1; an exception it raises ends the run", none="not called"),
)  # fmt: skip

# What only the command line has.
FILES = (
    Option("files", "model", Text(), "", "The model, a GGUF file.",
        flag=Flag("-m --model", LOADS + " tokenize inspect", "FILE")),
    Option("files", "draft", Text(), "", "A smaller model with the same vocabulary that drafts "
        "ahead.",
        flag=Flag("-md --model-draft", DRAFTS + " inspect", "FILE")),
    Option("files", "n_gpu_layers_draft", Other("int"), "auto",
        "As -ngl, for the draft model, which is placed first.",
        flag=Flag("-ngld --gpu-layers-draft --n-gpu-layers-draft", DRAFTS + " inspect", "N")),
)  # fmt: skip
