"""The student: the 3DGS decoder that turns the teacher's latents into Gaussians."""

from lyra.student.decoder import DecoderConfig, GaussianDecoder, StudentInputs, decode_scene
from lyra.student.inputs import prepare_student_inputs

__all__ = ["DecoderConfig", "GaussianDecoder", "StudentInputs", "decode_scene", "prepare_student_inputs"]
