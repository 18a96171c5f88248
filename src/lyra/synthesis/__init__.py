"""Self-distillation data: clips that the teacher imagines of inputs, kept as shards and read as a stream.

A data set is a folder::

    DATA/dataset.json               what it was asked for: model, seed, inputs' digest, share that is held out
    DATA/shards/train-00000.tar     samples: plain tar, as WebDataset lays it out
    DATA/shards/train-00000.json    where in the tar each sample begins, its size and its SHA-256
    DATA/shards/held-out-00000.tar  scenes that no training reads
    DATA/manifest.json              when it is finished: every shard's SHA-256 and samples, and who is missing
    DATA/quarantine.jsonl           inputs that failed three times, with their errors
    DATA/log.jsonl                  seconds and machine of each sample, in the order in which they were finished
    DATA/work/                      while it is not finished: samples of shards that are not full, unfinished scenes

A sample is one input with all its clips. Its files in the tar begin with its id::

    ID.json                         caption, split, clips by name with ids of their own, provenance
    ID.views.safetensors            the input: pictures (8 bits), depth (16 bits), cameras, what moves
    ID.NAME.safetensors             of each clip: latents (16 bits), camera_to_world, intrinsics, depth (16 bits)
    ID.NAME.backward.safetensors    of a video: the same of the video run backward, as imagined

A clip's frames are its latents decoded by the tokenizer whose checksum the provenance names. Ids are digests of what
the input holds, the seed, the model and the trajectory, never of paths or of times; shards hold samples in the order of
their ids, so that the same inputs give the same bytes however often, by whom and in which order they were made.
"""
