"""A student for others: a folder for mmpretrain, ONNX files, the model zoo."""
from .measures import Measured, count_macs, measure, tabulate
from .mmpretrain_folder import export_folder
from .onnx_file import DeployedStudent, export_onnx, quantize
from .student_files import export_student
from .zoo_student import as_training, write_zoo_student

__all__ = ['DeployedStudent', 'Measured', 'as_training', 'count_macs', 'export_folder', 'export_onnx', 'export_student',
           'measure', 'quantize', 'tabulate', 'write_zoo_student']
