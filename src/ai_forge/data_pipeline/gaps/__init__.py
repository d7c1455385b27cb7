"""Code that is taken away to be written again from what stands around it: for training on it, and for judging by it.

cutting     lines, blocks, arguments and bodies, cut at syntax nodes
history     what past commits wrote, and the repository as it stood before
neighbours  what an editor would send besides: places in other files that retrieval finds
examples    the gaps that are trained on, of the files that may be trained on
"""
