"""The X2SAM network, one file per part. Reading order: config, encodings, mask_encoder, pixel_decoder,
memory_attention, memory_encoder, mask_decoder, segmentor, region_sampler, projectors, language, x2sam.
"""
