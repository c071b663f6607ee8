"""A student for other programs: a folder for mmpretrain, and ONNX files."""
from .measures import Measured, count_macs, measure, tabulate
from .mmpretrain_folder import export_folder
from .onnx_file import DeployedStudent, export_onnx, quantize
from .student_files import export_student

__all__ = ['DeployedStudent', 'Measured', 'count_macs', 'export_folder', 'export_onnx', 'export_student', 'measure', 'quantize',
           'tabulate']
