"""The teacher: a camera-controlled video diffusion model that imagines clips of a scene."""

from lyra.teacher.diffusion import DiffusionTeacher, TeacherConfig, TeacherRequest, VideoTeacher

__all__ = ["DiffusionTeacher", "TeacherConfig", "TeacherRequest", "VideoTeacher"]
